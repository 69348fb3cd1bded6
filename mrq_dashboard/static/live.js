"use strict";
// Keeps a page live: the stream of events names the topics that changed, htmx reads the page again and morphs
// the regions of these topics. Without a stream, the page is read every few seconds. Pages work without it.
(() => {
  const button = document.querySelector("[data-live]");
  const regions = () => [...document.querySelectorAll("[data-topics]")];
  if (!button || !regions().length || !window.htmx) return;
  const root = document.body.dataset.root || "";
  const KEY = "mrq-paused", ALL = "*";
  const GAP = 1000, POLL = 5000, RETRY = 30000, TRIES = 3, SHARE = 4;
  const state = { source: null, failures: 0, due: new Set(), isBusy: false, restUntil: 0, timer: 0, retry: 0, poll: 0 };
  const job = document.querySelector("[data-job]")?.dataset.job;

  // --- the switch ---
  const stored = () => { try { return localStorage.getItem(KEY) === "1"; } catch { return false; } };
  let isPaused = stored();
  const show = (words, detail) => {
    button.querySelector("span").textContent = words;
    button.dataset.state = words.toLowerCase();
    button.title = detail;
  };
  const status = () => {
    if (isPaused) show("Paused", "This page does not change. Press to follow changes");
    else if (state.isAway) show("Away", "The broker does not answer. The page goes on when it does");
    else if (state.poll) show("Live", "There is no stream: the page is read every 5 seconds. Press to pause");
    else show("Live", "This page follows changes. Press to pause");
  };
  button.hidden = false;
  button.addEventListener("click", () => {
    isPaused = !isPaused;
    try { if (isPaused) localStorage.setItem(KEY, "1"); else localStorage.removeItem(KEY); } catch { /* private mode */ }
    follow();
  });

  // --- the stream ---
  const close = () => {
    state.source?.close();
    state.source = null;
    clearTimeout(state.retry);
    clearInterval(state.poll);
    clearTimeout(state.timer);
    state.retry = state.poll = state.timer = 0;
    state.due.clear();
  };
  const open = () => {
    const source = state.source = new EventSource(`${root}/events${job ? `?job=${encodeURIComponent(job)}` : ""}`);
    source.addEventListener("ready", () => {
      state.failures = 0;
      clearInterval(state.poll);
      state.poll = 0;
      want([ALL]);
    });
    source.addEventListener("changed", (event) => want(event.data.split(" ")));
    for (const name of ["away", "back"]) {
      source.addEventListener(name, () => { state.isAway = name === "away"; if (!state.isAway) want([ALL]); status(); });
    }
    source.addEventListener("error", () => {
      source.close();
      if (state.source !== source) return;
      state.source = null;
      state.failures += 1;
      if (state.failures >= TRIES && !state.poll) state.poll = setInterval(() => want([ALL]), POLL);
      state.retry = setTimeout(open, state.failures < TRIES ? 1000 * state.failures : RETRY);
      status();
    });
  };
  const follow = () => {
    close();
    state.isAway = false;
    state.failures = 0;
    if (!isPaused && !document.hidden) open();
    status();
  };
  document.addEventListener("visibilitychange", follow);
  window.addEventListener("pagehide", close);
  window.addEventListener("pageshow", (event) => { if (event.persisted) follow(); });

  // --- reading ---
  // Nothing moves under a pressed pointer or a selected text.
  let isPressed = false;
  for (const name of ["pointerdown", "pointerup", "pointercancel"]) {
    document.addEventListener(name, () => { isPressed = name === "pointerdown"; }, true);
  }
  const isHeld = () => {
    const selection = getSelection();
    return isPressed || (!selection.isCollapsed && regions().some((region) => region.contains(selection.anchorNode)));
  };
  const want = (topics) => {
    for (const topic of topics) state.due.add(topic);
    if (state.isBusy || state.timer) return;
    state.timer = setTimeout(read, Math.max(0, state.restUntil - performance.now()));
  };
  const read = async () => {
    state.timer = 0;
    if (isHeld()) { state.timer = setTimeout(read, GAP / 4); return; }
    const topics = new Set(state.due);
    state.due.clear();
    const begin = performance.now();
    state.isBusy = true;
    try {
      let changed = regions().filter((region) => topics.has(ALL) || region.dataset.topics.split(" ").some((topic) => topics.has(topic)));
      if (!changed.length && topics.has("log")) changed = await appendLog() ? [] : regions();
      if (changed.length) await morph(changed);
    } catch (error) { if (error.name !== "TypeError") throw error; /* the server does not answer: the stream ends, too */ }
    finally {
      // A page that the server takes long to make is read less often.
      state.restUntil = Math.max(begin + GAP, performance.now() + SHARE * (performance.now() - begin));
      state.isBusy = false;
      if (state.due.size) want([]);
    }
  };
  const morph = async (changed) => {
    const names = [...changed.map((region) => region.id), "asof"];
    await htmx.ajax("GET", location.pathname + location.search, {
      source: document.body, target: document.body, swap: "none", headers: { "X-Fragment": "1" },
      selectOOB: names.map((name) => `#${name}:outerMorph`).join(),
    });
    document.dispatchEvent(new CustomEvent("mrq:read"));
  };

  // --- the log of a job ---
  const MOST_LINE = 4000;
  const CONTROLS = /[\0-\x08\x0b-\x1f\x7f-\x9f\xad\u061c\u180e\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb]/g;
  const appendLog = async () => {
    const here = document.querySelector("[data-job]");
    const answer = await fetch(`${root}/api/jobs/${encodeURIComponent(job)}/logs?cursor=${encodeURIComponent(here.dataset.cursor)}`);
    if (!answer.ok) return false;
    const { lines, cursor } = await answer.json();
    const logs = new Map([...document.querySelectorAll(".log[data-attempt]")].map((log) => [Number(log.dataset.attempt), log]));
    if (lines.some((line) => !logs.has(line.attempt))) return false;
    for (const [attempt, log] of logs) {
      const isAtEnd = log.scrollTop + log.clientHeight >= log.scrollHeight - 4;
      log.append(...lines.filter((line) => line.attempt === attempt).map(lineOf));
      while (log.children.length > Number(log.dataset.most)) log.firstElementChild.remove();
      if (isAtEnd) log.scrollTop = log.scrollHeight;
    }
    here.dataset.cursor = cursor;
    return true;
  };
  const lineOf = (line) => {
    const item = document.createElement("li");
    const [time, level, message] = ["time", "span", "bdi"].map((name) => document.createElement(name));
    item.dataset.level = line.level;
    time.dateTime = line.at;
    time.textContent = line.at.match(/T([\d:]{8}(?:\.\d{1,3})?)/)?.[1] ?? line.at;
    level.textContent = line.level;
    message.textContent = line.message.slice(0, MOST_LINE).replace(CONTROLS, (found) => `\\u${found.charCodeAt().toString(16).padStart(4, "0")}`);
    item.append(time, level, message);
    return item;
  };

  follow();
})();
