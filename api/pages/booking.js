/* Shows a booking by its code, changes it, answers offers, takes feedback and makes certificates. The code stands after # in the
   address, which no browser sends and no proxy sees; it is kept nowhere, nor is a name typed here. Written for old engines (ES5). */
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
  var main = byId("main"), form = byId("form"), change = byId("change"), language = main.getAttribute("data-language"), code = "", busy = false;
  var shown = null;
  function word(name) { return main.getAttribute("data-" + name) || name; }
  function filled(name, n) { return word(name).replace("{n}", n); }
  function clock(text) { return text.slice(0, 16).replace("T", " "); }
  function tell(id, text) {
    ["wrong", "told"].forEach(function (one) { byId(one).hidden = true; });
    if (!text) return;
    byId(id).textContent = text;
    byId(id).hidden = false;
    byId(id).scrollIntoView();
  }
  function complain(text) { tell("wrong", text || word("failed")); }

  /* `done` gets the parsed answer of a 2xx; what was refused is said as the service says it */
  function ask(method, path, body, done) {
    var request = new XMLHttpRequest();
    if (busy) return;
    busy = true;
    tell();
    request.open(method, "/v1/bookings/" + encodeURIComponent(code) + path);
    request.setRequestHeader("Accept-Language", language);
    if (body) request.setRequestHeader("Content-Type", "application/json");
    request.onload = function () {
      var reply = {};
      busy = false;
      try { reply = JSON.parse(request.responseText); } catch (error) { /* nothing, or a proxy's page: the general words */ }
      if (request.status === 204 || (request.status === 200 && reply.places)) return done(reply);
      refused(request.status, reply);
    };
    request.onerror = function () { busy = false; complain(); };
    request.send(body ? JSON.stringify(body) : null);
  }

  function refused(status, reply) {
    var texts = (reply.errors || []).concat(reply.messages && !(reply.errors || []).length ? [reply] : []).map(function (one) {
      return one.messages[language] || one.messages["zh-Hans"];
    });
    if (status === 404 && !shown) texts = [word("lost")];
    complain(texts.join(" "));
  }

  function press(parent, name, method, path) {
    var button = add(parent, "button", word(name), name === "accept" ? "" : "quiet");
    button.type = "button";
    button.onclick = function () {
      if (name === "accept" || window.confirm(word("sure"))) ask(method, path, null, show);
    };
  }

  /* a part that opens: a button, and what it leads to */
  function folded(parent, title) {
    var details = add(parent, "details");
    add(details, "summary", title);
    return add(details, "form");
  }

  function choice(parent, title, options, optional) {
    var label = add(parent, "label", title), select = add(label, "select");
    if (optional) add(select, "option", "").value = "";
    options.forEach(function (one) { add(select, "option", one.text).value = one.code; });
    return select;
  }

  function feedback(row, questions, path) {
    var said = folded(row, word("say")), fields = {};
    questions.forEach(function (one) {
      if (one.options.length) {
        fields[one.code] = choice(said, one.text, one.options, true);
        fields[one.code].required = true;
      } else {
        fields[one.code] = add(add(said, "label", one.text), "textarea");
        fields[one.code].maxLength = Number(word("longest-comment"));
      }
    });
    add(said, "button", word("say_send"));
    said.onsubmit = function (event) {
      var body = {};
      event.preventDefault();
      Object.keys(fields).forEach(function (name) {
        var value = fields[name].value;
        if (value) body[name] = name === "useful" ? Number(value) : value;
      });
      ask("POST", path + "/feedback", body, function () { open(code, word("said")); });
    };
  }

  function certificate(row, title, most, path) {
    var paper = folded(row, title), name = add(add(paper, "label", word("print_name")), "input"), seat = null, seats = [], n, link;
    name.maxLength = Number(word("longest-name"));
    name.autocomplete = "off";
    for (n = 1; n <= most; n++) seats.push({ code: String(n), text: String(n) });
    if (most > 1) seat = choice(paper, word("which_seat"), seats);
    add(paper, "button", word("make"));
    add(paper, "p", word("made_more"), "small");
    paper.onsubmit = function (event) {
      var request = new XMLHttpRequest();
      event.preventDefault();
      if (busy) return;
      busy = true;
      tell();
      request.open("POST", "/v1/bookings/" + encodeURIComponent(code) + path + "/certificate");
      request.setRequestHeader("Content-Type", "application/json");
      request.responseType = "blob";
      request.onload = function () {
        busy = false;
        if (request.status === 200) return hand(request.response);
        var reader = new FileReader();
        reader.onload = function () {
          var reply = {};
          try { reply = JSON.parse(reader.result); } catch (error) { /* a proxy's page */ }
          refused(request.status, reply);
        };
        reader.readAsText(request.response);
      };
      request.onerror = function () { busy = false; complain(); };
      request.send(JSON.stringify({ name: name.value, seat: seat ? Number(seat.value) : 1, language: language }));
    };
    function hand(blob) {
      if (window.navigator.msSaveBlob) return window.navigator.msSaveBlob(blob, "certificate.pdf");
      if (link) {
        window.URL.revokeObjectURL(link.href);
        paper.removeChild(link);
      }
      link = add(paper, "a", word("made"), "go");
      link.href = window.URL.createObjectURL(blob);
      link.download = "certificate.pdf";
      link.click();
    }
  }

  function show(booking) {
    var messages = byId("messages"), places = byId("places"), live = 0, door = false, over = [];
    shown = booking;
    messages.textContent = places.textContent = byId("whole").textContent = "";
    booking.messages.forEach(function (one) { add(messages, "p", one.text, "said"); });
    byId("inbox").hidden = !booking.messages.length;
    booking.places.forEach(function (one) {
      var row = add(places, "li"), session = one.session, path = "/places/" + encodeURIComponent(session.id), held, link, past;
      past = Date.parse(session.ends_at) <= Date.now();
      add(row, "b", word(session.state === "cancelled" ? "off" : one.state));
      add(row, "div", session.title);
      add(row, "div", clock(session.starts_at) + "–" + session.ends_at.slice(11, 16) + " · " + filled("people", one.seats));
      if (session.venue) add(row, "div", [session.venue.name, session.venue.address].filter(Boolean).join(" "));
      if (one.state === "waiting") add(row, "div", word("ahead") + one.ahead);
      if (one.offered_until) add(row, "div", word("until") + clock(one.offered_until));
      if (one.online_link && one.online_link.slice(0, 8) === "https://") {
        link = add(row, "a", word("link"));
        link.href = one.online_link;
        link.rel = "noopener noreferrer";
      }
      held = session.state === "published" && !past && ["requested", "confirmed", "waiting"].indexOf(one.state) >= 0;
      if (session.state === "published" && !past && one.state === "offered") {
        press(row, "accept", "POST", path + "/accept");
        press(row, "decline", "POST", path + "/decline");
        live += 1;
      } else if (held) press(row, "leave", "DELETE", path);
      live += held ? 1 : 0;
      door = door || (held && one.state === "confirmed");
      if (one.feedback.open) feedback(row, one.feedback.questions, path);
      if (one.feedback.given) add(row, "div", word("said"), "small");
      if (past && one.attended && one.state === "confirmed" && session.state !== "cancelled") {
        certificate(row, word("certificate"), one.attended, path);
        over.push(one.attended);
      }
    });
    if (over.length > 1) certificate(byId("whole"), word("certificate_all"), Math.max.apply(null, over), "");
    byId("door").hidden = !door;
    if (door) byId("check-in").src = "/v1/bookings/" + encodeURIComponent(code) + "/check-in.svg";
    byId("change-part").hidden = !live;
    change.elements.seats.value = String(booking.seats);
    change.elements.needs.value = "";
    byId("feed").textContent = word("base") + booking.calendar;
    byId("calendar").href = (word("base") + booking.calendar).replace(/^https?:/, "webcal:");
    byId("qr").src = "/v1/bookings/" + encodeURIComponent(code) + "/qr.svg";
    byId("whom").textContent = booking.organiser || booking.contact ? word("ask") + [booking.organiser, booking.contact].filter(Boolean).join(" ") : "";
    byId("cancel").hidden = live < 2;
    byId("booking").hidden = false;
    form.hidden = true;
  }

  function open(text, said) {
    if (text !== code) shown = null;
    code = text;
    ask("GET", "", null, function (booking) {
      show(booking);
      if (said) tell("told", said);
    });
  }

  form.onsubmit = function (event) {
    event.preventDefault();
    window.location.hash = form.elements.code.value.trim().replace(/\s+/g, "-");
  };
  change.onsubmit = function (event) {
    var body = {}, seats = Number(change.elements.seats.value), needs = change.elements.needs.value.trim();
    event.preventDefault();
    if (seats !== shown.seats) body.seats = seats;
    if (needs) body.needs = needs;
    if (!Object.keys(body).length) return tell("told", word("nothing_new"));
    ask("PATCH", "", body, function (booking) {
      show(booking);
      tell("told", word("saved"));
    });
  };
  window.onhashchange = function () {
    var text = decodeURIComponent(window.location.hash.slice(1));
    if (text) open(text);
  };
  byId("cancel").onclick = function () { if (window.confirm(word("sure"))) ask("DELETE", "", null, show); };
  byId("plain").hidden = true;
  form.hidden = false;
  window.onhashchange();
})();
