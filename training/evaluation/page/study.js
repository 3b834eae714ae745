"use strict";
(() => {
  const study = JSON.parse(document.getElementById("study").textContent);
  const screen = document.getElementById("screen");
  const bar = document.getElementById("progress");
  const counter = document.getElementById("count");
  const title = document.title;
  const place = "s2v-study-" + study.study;
  const total = study.parts.reduce((sum, part) => sum + part.questions.length, 0);
  let kept = true; // whether progress outlives the page
  let state = restore();
  let order = state ? arrange(state.participant) : [];

  // What is known of this participant, from an earlier visit.

  function restore() {
    try {
      const found = JSON.parse(localStorage.getItem(place));
      return found && found.study === study.study ? found : null;
    } catch {
      return null;
    }
  }

  function keep() {
    try {
      localStorage.setItem(place, JSON.stringify(state));
    } catch {
      kept = false;
    }
  }

  function begin() {
    const bytes = crypto.getRandomValues(new Uint8Array(8));
    const participant = Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("");
    state = {
      study: study.study,
      participant,
      started: new Date().toISOString(),
      finished: null,
      at: 0,
      told: 0, // parts whose instructions were read
      answers: {},
    };
    order = arrange(participant);
    keep();
  }

  // Each participant sees the questions of a part, and the pictures of a question, in an order of
  // their own, which follows from the participant's number alone.

  function arrange(participant) {
    let seed = parseInt(participant.slice(0, 8), 16);
    const random = () => { // mulberry32
      seed = (seed + 0x6d2b79f5) | 0;
      let mixed = Math.imul(seed ^ (seed >>> 15), seed | 1);
      mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61);
      return ((mixed ^ (mixed >>> 14)) >>> 0) / 4294967296;
    };
    const shuffle = (items) => {
      const mixed = [...items];
      for (let last = mixed.length - 1; last > 0; last--) {
        const other = Math.floor(random() * (last + 1));
        [mixed[last], mixed[other]] = [mixed[other], mixed[last]];
      }
      return mixed;
    };
    return study.parts.flatMap((part, number) =>
      shuffle(part.questions).map((question) => ({
        ...question,
        part: number,
        several: part.several,
        pictures: shuffle(question.pictures),
      })),
    );
  }

  // Screens.

  function element(name, properties = {}, ...children) {
    const made = Object.assign(document.createElement(name), properties);
    made.append(...children);
    return made;
  }

  function button(text, action, kind = "") {
    const made = element("button", { type: "button", className: kind }, text);
    made.addEventListener("click", action);
    return made;
  }

  function panel(heading, ...content) {
    const first = element("h1", { tabIndex: -1 }, heading);
    screen.replaceChildren(element("section", { className: "panel" }, first, ...content));
    tell();
    document.title = heading === title ? title : `${heading} - ${title}`;
    scrollTo(0, 0);
    first.focus({ preventScroll: true });
  }

  function tell(text = "") {
    const done = state ? Object.keys(state.answers).length : 0;
    bar.max = total;
    bar.value = done;
    bar.hidden = !state;
    counter.hidden = !text;
    counter.textContent = text;
  }

  function list(...lines) {
    return element("ul", {}, ...lines.map((line) => element("li", {}, line)));
  }

  function welcome() {
    const minutes = Math.max(5, Math.ceil((total * 20) / 300) * 5);
    const start = button("Start", () => { begin(); advance(); }, "main");
    panel(
      title,
      element("p", {}, "You will hear short sounds, and see pictures that computers made."),
      list(
        `There are ${total} questions. They take about ${minutes} minutes.`,
        "Use headphones or speakers, and set a comfortable volume at the first sound.",
        "Go by your first impression.",
        "Nothing is sent anywhere, and no name is asked for. At the end you save a file with " +
          "your answers.",
      ),
      ...(study.note ? [element("p", { className: "note" }, study.note)] : []),
      element("nav", {}, start),
    );
  }

  function instructions(number) {
    const part = study.parts[number];
    const count = part.questions.length;
    const go = button("Continue", () => { state.told = number + 1; keep(); advance(); }, "main");
    const named = study.parts.length > 1 ? `Part ${number + 1} of ${study.parts.length}` : "";
    panel(
      named || "What to do",
      element(
        "p",
        {},
        `${count} ${count === 1 ? "question" : "questions"}. In each you hear a sound and see ` +
          `${part.questions[0].pictures.length} pictures. `,
        element(
          "strong",
          {},
          part.several
            ? "Choose those that best represent the sound: one or more."
            : "Choose the one that fits the sound best.",
        ),
      ),
      element("p", {}, "You may play the sound as often as you like."),
      element("nav", {}, go),
    );
  }

  function ask() {
    const question = order[state.at];
    const answer = state.answers[question.id] || { chosen: [], seconds: 0, plays: 0 };
    const since = performance.now();
    const heading = `Question ${state.at + 1} of ${total}`;
    const sound = element("audio", {
      controls: true, preload: "auto", src: question.sound, ariaLabel: "The sound",
    });
    sound.setAttribute("controlslist", "nodownload noplaybackrate");
    const problem = element("p", { className: "problem" });
    problem.setAttribute("role", "alert");
    sound.addEventListener("play", () => { answer.plays += 1; problem.textContent = ""; });
    sound.addEventListener("error", () => {
      problem.textContent = "This browser cannot play the sound. Please use another one.";
    });
    const cards = question.pictures.map((picture, number) => {
      const box = element("input", {
        type: question.several ? "checkbox" : "radio",
        name: "picture",
        value: picture.id,
        checked: answer.chosen.includes(picture.id),
      });
      const image = element("img", { src: picture.source, alt: "" });
      const label = element("span", { className: "label" }, box, `Picture ${number + 1}`);
      return element("label", { className: "card" }, image, label);
    });
    const boxes = cards.map((card) => card.querySelector("input"));
    const store = () => {
      answer.seconds += (performance.now() - since) / 1000;
      answer.chosen = boxes.filter((box) => box.checked).map((box) => box.value);
      state.answers[question.id] = answer;
    };
    const next = () => {
      const chosen = boxes.some((box) => box.checked);
      if (!answer.plays || !chosen) {
        problem.textContent = answer.plays
          ? question.several ? "Choose at least one picture." : "Choose a picture."
          : "Play the sound first.";
        (answer.plays ? boxes[0] : sound).focus();
        return;
      }
      store();
      state.at += 1;
      keep();
      advance();
    };
    const back = () => {
      if (boxes.some((box) => box.checked) && answer.plays) store();
      state.at -= 1;
      keep();
      advance();
    };
    const columns = cards.length % 3 && cards.length % 4 === 0 ? "pictures even" : "pictures";
    const text = question.several
      ? "Which pictures best represent the sound?"
      : "Which picture fits the sound best?";
    const first = element("h1", { tabIndex: -1, ariaLabel: `${heading}. ${text}` }, text);
    screen.replaceChildren(
      first,
      sound,
      element(
        "fieldset",
        {},
        element("legend", {}, question.several ? "Choose one or more" : "Choose one"),
        element("div", { className: columns }, ...cards),
      ),
      problem,
      element(
        "nav",
        {},
        ...(state.at > 0 ? [button("Back", back)] : []),
        button(state.at + 1 < total ? "Next" : "Finish", next, "main"),
      ),
    );
    tell(heading);
    document.title = `${heading} - ${title}`;
    scrollTo(0, 0);
    first.focus({ preventScroll: true });
  }

  function finish() {
    if (!state.finished) {
      state.finished = new Date().toISOString();
      keep();
    }
    const text = JSON.stringify(result(), null, 1);
    const file = `answers-${state.participant}.json`;
    const area = element("textarea", { readOnly: true, value: text, ariaLabel: "Your answers" });
    const said = element("p", { className: "problem" });
    said.setAttribute("role", "status");
    const save = () => {
      const address = URL.createObjectURL(new Blob([text], { type: "application/json" }));
      const link = element("a", { href: address, download: file });
      document.body.append(link);
      link.click();
      link.remove();
      setTimeout(() => URL.revokeObjectURL(address), 10000);
    };
    const copy = () => {
      area.select();
      said.textContent = document.execCommand("copy") ? "Copied." : "Select the text and copy it.";
    };
    const again = () => {
      if (!confirm("Forget these answers and begin with another person?")) return;
      localStorage.removeItem(place);
      state = null;
      welcome();
    };
    panel(
      "Thank you",
      element("p", {}, "All questions are answered. Save your answers, and send the file ",
        element("strong", {}, file), " to whoever gave you this page."),
      ...(study.note ? [element("p", { className: "note" }, study.note)] : []),
      element("nav", {}, button("Save my answers", save, "main")),
      element("details", {}, element("summary", {}, "It does not save?"),
        element("p", {}, "Copy this text and send it instead."),
        area, button("Copy", copy), said),
      element("nav", {}, button("Change an answer", () => {
        state.at = total - 1; state.finished = null; keep(); advance();
      }, "plain"), ...(kept ? [button("Another person", again, "plain")] : [])),
    );
  }

  function result() {
    return {
      format: "s2v-study-answers",
      version: 1,
      study: study.study,
      participant: state.participant,
      started: state.started,
      finished: state.finished,
      answers: order.map((question) => ({
        question: question.id,
        shown: question.pictures.map((picture) => picture.id),
        chosen: state.answers[question.id].chosen,
        seconds: Math.round(state.answers[question.id].seconds * 10) / 10,
        plays: state.answers[question.id].plays,
      })),
    };
  }

  function advance() {
    if (!state) return welcome();
    if (state.at >= total) return finish();
    const part = order[state.at].part;
    return state.told > part ? ask() : instructions(part);
  }

  advance();
})();
