/* Books a seat from the share page. Written for old engines (ES5); stores nothing, loads nothing, tells nobody else. */
(function () {
  "use strict";
  function byId(id) { return document.getElementById(id); }
  var form = byId("form"), wrong = byId("wrong"), button = form.getElementsByTagName("button")[0], language = form.getAttribute("data-language");
  var sent = "", key = "";

  function newKey() {
    var bytes = new Uint8Array(16), text = "", n;
    (window.crypto || window.msCrypto).getRandomValues(bytes);
    for (n = 0; n < 16; n++) text += ("0" + bytes[n].toString(16)).slice(-2);
    return text;
  }

  function complain(text) {
    wrong.textContent = text || form.getAttribute("data-failed");
    wrong.hidden = false;
    button.disabled = false;
  }

  function answered(request) {
    var reply = {}, texts = [], states, state;
    try { reply = JSON.parse(request.responseText); } catch (error) { /* a proxy's page: the general words */ }
    if (request.status !== 201 || !reply.code) {
      (reply.errors || []).forEach(function (one) {
        var field = form.elements[one.field];
        texts.push((field && field.getAttribute && field.getAttribute("data-wrong")) || one.messages[language] || one.messages["zh-Hans"]);
      });
      return complain(texts.join(" ") || (reply.messages && (reply.messages[language] || reply.messages["zh-Hans"])));
    }
    states = reply.places.map(function (one) { return one.state; });
    state = ["confirmed", "requested", "waiting"].filter(function (one) { return states.indexOf(one) >= 0; })[0];
    if (reply.whole) reply.places.forEach(function (one) {
      var row = byId("placed").appendChild(document.createElement("li")), session = one.session;
      row.textContent = [session.starts_at.slice(0, 16).replace("T", " "), session.title, byId("done").getAttribute("data-" + one.state)].join(" · ");
    });
    Array.prototype.forEach.call(byId("done").querySelectorAll("[data-state]"), function (one) {
      one.hidden = one.getAttribute("data-state") !== state;
    });
    if (reply.left_out && reply.left_out.length) {
      byId("left").textContent = byId("left").getAttribute("data-text").replace("{n}", reply.left_out.length);
      byId("left").hidden = false;
    }
    byId("code").textContent = reply.code;
    if (state === "confirmed") {
      byId("check-in").src = "/v1/bookings/" + reply.code + "/check-in.svg";
      byId("door").hidden = false;
    }
    byId("qr").src = "/v1/bookings/" + reply.code + "/qr.svg";
    byId("mine").href += "#" + reply.code;
    form.hidden = true;
    byId("done").hidden = false;
    byId("done").scrollIntoView();
  }

  form.onsubmit = function (event) {
    var request = new XMLHttpRequest(), answers = [], body;
    event.preventDefault();
    wrong.hidden = true;
    button.disabled = true;
    body = { family_name: form.elements.family_name.value, phone: form.elements.phone.value, seats: Number(form.elements.seats.value) };
    if (form.elements.needs.value) body.needs = form.elements.needs.value;
    if (form.elements.wait && form.elements.wait.checked) body.wait = true;
    if (form.getAttribute("data-invitation")) body.invitation = form.getAttribute("data-invitation");
    Array.prototype.forEach.call(form.querySelectorAll("[data-question]"), function (one) {
      if (one.value) answers.push({ question: one.getAttribute("data-question"), answer: one.value });
    });
    if (answers.length) body.answers = answers;
    body = JSON.stringify(body);
    /* the same words again (pressed twice, or after a lost answer) are the same booking */
    if (body !== sent) key = newKey();
    sent = body;
    request.open("POST", form.getAttribute("data-post"));
    request.setRequestHeader("Content-Type", "application/json");
    request.setRequestHeader("Idempotency-Key", key);
    request.onload = function () { answered(request); };
    request.onerror = function () { complain(); };
    request.send(body);
  };
  byId("plain").hidden = true;
  form.hidden = false;
})();
