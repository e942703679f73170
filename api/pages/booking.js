/* Shows a booking by its code, accepts, declines and cancels. The code stands after # in the address, which no browser sends and
   no proxy sees; it is kept nowhere. Written for old engines (ES5). */
(function () {
  "use strict";
  function byId(id) { return document.getElementById(id); }
  function add(parent, name, text, kind) {
    var made = document.createElement(name);
    if (text) made.textContent = text;
    if (kind) made.className = kind;
    parent.appendChild(made);
    return made;
  }
  var main = byId("main"), form = byId("form"), wrong = byId("wrong"), language = main.getAttribute("data-language"), code = "";
  function word(name) { return main.getAttribute("data-" + name) || name; }

  function ask(method, path) {
    var request = new XMLHttpRequest();
    wrong.hidden = true;
    request.open(method, "/v1/bookings/" + encodeURIComponent(code) + path);
    request.setRequestHeader("Accept-Language", language);
    request.onload = function () {
      var reply = {};
      try { reply = JSON.parse(request.responseText); } catch (error) { /* a proxy's page: the general words */ }
      if (request.status === 200 && reply.places) return show(reply);
      complain(request.status === 404 ? word("lost") : reply.messages && (reply.messages[language] || reply.messages["zh-Hans"]));
    };
    request.onerror = function () { complain(); };
    request.send();
  }

  function complain(text) {
    wrong.textContent = text || word("failed");
    wrong.hidden = false;
  }

  function press(parent, name, method, path) {
    var button = add(parent, "button", word(name), name === "accept" ? "" : "quiet");
    button.type = "button";
    button.onclick = function () {
      if (name === "accept" || window.confirm(word("sure"))) ask(method, path);
    };
  }

  function show(booking) {
    var messages = byId("messages"), places = byId("places"), live = 0;
    messages.textContent = places.textContent = "";
    booking.messages.forEach(function (one) { add(messages, "p", one.text, "said"); });
    booking.places.forEach(function (one) {
      var row = add(places, "li"), session = one.session, path = "/places/" + encodeURIComponent(session.id), held, link;
      add(row, "b", word(one.state));
      add(row, "div", session.title);
      add(row, "div", session.starts_at.slice(0, 16).replace("T", " ") + "–" + session.ends_at.slice(11, 16) + " · " + one.seats);
      if (session.venue) add(row, "div", [session.venue.name, session.venue.address].filter(Boolean).join(" "));
      if (one.state === "waiting") add(row, "div", word("ahead") + one.ahead);
      if (one.offered_until) add(row, "div", word("until") + one.offered_until.slice(0, 16).replace("T", " "));
      if (one.online_link && one.online_link.slice(0, 8) === "https://") {
        link = add(row, "a", word("link"));
        link.href = one.online_link;
        link.rel = "noopener noreferrer";
      }
      held = session.state === "published" && ["requested", "confirmed", "waiting"].indexOf(one.state) >= 0;
      if (session.state === "published" && one.state === "offered") {
        press(row, "accept", "POST", path + "/accept");
        press(row, "decline", "POST", path + "/decline");
      } else if (held) press(row, "leave", "DELETE", path);
      live += held || one.state === "offered" ? 1 : 0;
    });
    byId("calendar").href = booking.calendar;
    byId("qr").src = "/v1/bookings/" + encodeURIComponent(code) + "/qr.svg";
    byId("cancel").hidden = live < 2;
    byId("booking").hidden = false;
    form.hidden = true;
  }

  function open(text) {
    code = text;
    ask("GET", "");
  }

  form.onsubmit = function (event) {
    event.preventDefault();
    window.location.hash = form.elements.code.value.trim().replace(/\s+/g, "-");
  };
  window.onhashchange = function () {
    var text = decodeURIComponent(window.location.hash.slice(1));
    if (text) open(text);
  };
  byId("cancel").onclick = function () { if (window.confirm(word("sure"))) ask("DELETE", ""); };
  byId("plain").hidden = true;
  form.hidden = false;
  window.onhashchange();
})();
