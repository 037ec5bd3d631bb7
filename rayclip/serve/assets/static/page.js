// The page works as links and a form; this adds the player, the keyboard and dropped pictures.

const byId = (id) => document.getElementById(id);
const player = byId("player");
const video = byId("video");
const still = byId("still");
const note = byId("player-note");
const box = byId("q");
const moments = [...document.querySelectorAll(".moment")];
const model = document.body.dataset.model;
const previewSeconds = Number(document.body.dataset.previewS);

const say = (text) => { byId("status").textContent = text; };
const media = (kind, id, values) => `/${kind}/${id}?${new URLSearchParams({ model, ...values })}`;

function clock(seconds) {
  const whole = Math.floor(seconds);
  const two = (number) => String(number).padStart(2, "0");
  const hours = Math.floor(whole / 3600);
  const minutes = Math.floor(whole / 60) % 60;
  return hours ? `${hours}:${two(minutes)}:${two(whole % 60)}` : `${minutes}:${two(whole % 60)}`;
}

// ---- the player -----------------------------------------------------------------------------

let playing = null; // the moment; its identity tells whether an answer is still wanted

function play(moment) {
  playing = { ...moment, start: Number(moment.start), converted: null };
  byId("player-name").textContent = `${moment.name}, ${clock(playing.start)}`;
  byId("player-like").href = moment.like;
  byId("player-link").href = location.href;
  note.textContent = "";
  showStill(false);
  video.src = media("videos", moment.video, {});
  if (!player.open) player.showModal();
  video.focus();
}

function showStill(isShown) {
  still.hidden = !isShown;
  video.hidden = isShown;
  if (isShown) {
    still.src = media("thumbnails", playing.video, { t: playing.best, large: "" });
  }
}

function start() { // fails if the browser wants a click first
  video.play().catch(() => {});
}

video.addEventListener("loadedmetadata", () => {
  if (!playing) return;
  if (playing.converted !== null) {
    start();
  } else if (video.videoWidth === 0) { // only its sound can be played
    convert(playing.start);
  } else {
    video.currentTime = playing.start;
    start();
  }
});

video.addEventListener("error", () => {
  if (!playing || !video.hasAttribute("src")) return;
  if (playing.converted === null) {
    convert(playing.start);
  } else {
    showStill(true);
    note.textContent = "This browser plays no video of this kind.";
  }
});

video.addEventListener("ended", () => {
  if (playing && playing.converted !== null) convert(playing.converted + previewSeconds);
});

async function convert(from) {
  const asked = playing;
  const isFirst = asked.converted === null;
  asked.converted = from;
  const source = media("previews", asked.video, { t: from });
  if (isFirst) {
    video.removeAttribute("src");
    showStill(true);
    note.textContent = "This browser cannot play this video: a part of it is being converted …";
  }
  const answer = await fetch(source, { headers: { Range: "bytes=0-0" } }).catch(() => null);
  const problem = answer === null ? "The server does not answer." : await answer.text();
  if (asked !== playing) return;
  if (answer !== null && answer.ok) {
    showStill(false);
    note.textContent = `Converted from ${clock(from)} on, without sound.`;
    video.src = source;
  } else if (isFirst) {
    note.textContent = `This video cannot be played: ${problem}`;
  }
}

function stop() {
  playing = null;
  video.removeAttribute("src");
  video.load();
  still.removeAttribute("src");
}

function withoutMoment() {
  const values = new URLSearchParams(location.search);
  values.delete("at");
  return values.size ? `/?${values}` : "/";
}

function sync() { // the address decides what is shown, so back and forward work
  const at = new URLSearchParams(location.search).get("at");
  if (at === null) {
    if (player.open) player.close();
    return;
  }
  const known = [player, ...moments].find(
    (place) => place.dataset.video && `${place.dataset.video}@${place.dataset.start}` === at,
  );
  if (known) play({ ...known.dataset });
}

player.addEventListener("close", () => {
  stop();
  if (!new URLSearchParams(location.search).has("at")) return;
  if (history.state?.opened) history.back();
  else history.replaceState(null, "", withoutMoment());
});
byId("close").addEventListener("click", () => player.close());
player.addEventListener("click", (event) => { if (event.target === player) player.close(); });
window.addEventListener("popstate", sync);

for (const moment of moments) {
  moment.addEventListener("click", (event) => {
    if (event.ctrlKey || event.metaKey || event.shiftKey) return; // a new tab or window
    event.preventDefault();
    history.pushState({ opened: true }, "", moment.href);
    play({ ...moment.dataset });
  });
}

// ---- the keyboard ---------------------------------------------------------------------------

function neighbour(index, key) {
  const top = moments[0].parentElement.offsetTop;
  const columns = moments.filter((moment) => moment.parentElement.offsetTop === top).length;
  const steps = { ArrowLeft: -1, ArrowRight: 1, ArrowUp: -columns, ArrowDown: columns };
  if (key === "Home") return 0;
  if (key === "End") return moments.length - 1;
  return key in steps ? index + steps[key] : null;
}

document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  const isTyping = event.target.matches("input, select, textarea");
  if (player.open) {
    if (event.key === "m" && playing) location.assign(playing.like);
    return;
  }
  if (event.key === "/" && !isTyping) {
    event.preventDefault();
    box.focus();
    box.select();
    return;
  }
  const index = moments.indexOf(event.target);
  if (index >= 0) {
    if (event.key === "m") {
      location.assign(event.target.dataset.like);
      return;
    }
    const next = neighbour(index, event.key);
    if (next === null) return;
    event.preventDefault();
    if (next < 0 && event.key === "ArrowUp") box.focus();
    else moments[next]?.focus();
  } else if (moments.length && (event.key === "ArrowDown" || (!isTyping && event.key === "ArrowRight"))) {
    if (isTyping && event.target !== box) return;
    event.preventDefault();
    moments[0].focus();
  }
});

byId("search").addEventListener("submit", (event) => { // keeps addresses short
  for (const field of event.target.elements) {
    if (field.name && !field.value) field.disabled = true;
  }
});
window.addEventListener("pageshow", () => {
  for (const field of byId("search").elements) field.disabled = false;
});

// ---- pictures -------------------------------------------------------------------------------

async function lookFor(file) {
  if (!file) {
    say("Drop a picture that is a file.");
    return;
  }
  say("The picture is being read …");
  const answer = await fetch("/pictures", { method: "POST", body: file }).catch(() => null);
  const text = answer === null ? "The server does not answer." : await answer.text();
  if (answer === null || !answer.ok) {
    say(text);
    return;
  }
  const values = new URLSearchParams(location.search);
  for (const name of ["q", "like", "at", "top"]) values.delete(name);
  values.set("picture", text);
  location.assign(`/?${values}`);
}

let inside = 0; // how many elements the dragged file is above
const drag = (step) => (event) => {
  event.preventDefault();
  inside = Math.max(0, inside + step);
  document.body.classList.toggle("dropping", inside > 0);
};
document.addEventListener("dragenter", drag(1));
document.addEventListener("dragleave", drag(-1));
document.addEventListener("dragover", (event) => event.preventDefault());
document.addEventListener("drop", (event) => {
  drag(-inside)(event);
  lookFor(event.dataTransfer.files[0]);
});
document.addEventListener("paste", (event) => {
  if (event.clipboardData.files.length) lookFor(event.clipboardData.files[0]);
});
byId("choose").addEventListener("click", () => byId("file").click());
byId("file").addEventListener("change", (event) => lookFor(event.target.files[0]));

for (const image of document.querySelectorAll(".picture img")) {
  const replace = () => image.replaceWith("no picture");
  if (image.complete && image.naturalWidth === 0) replace();
  else image.addEventListener("error", replace);
}

sync();
if (!player.open && !moments.length) box.focus();
