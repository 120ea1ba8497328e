// Shows the page anew every few seconds; without this script a reload does the same.
"use strict";
const every = 5000;
const isBusy = () => {
  const main = document.getElementById("main");
  const selected = document.getSelection();
  return document.hidden || (document.activeElement !== main && main.contains(document.activeElement)) ||
    (selected !== null && !selected.isCollapsed);
};
const renew = async () => {
  const state = document.getElementById("live");
  try {
    if (!isBusy()) {
      const answer = await fetch(location.href, { headers: { accept: "text/html" } });
      if (!answer.ok) throw new Error(await answer.text());
      const next = new DOMParser().parseFromString(await answer.text(), "text/html");
      // Whoever began to read or select meanwhile is not disturbed.
      if (!isBusy()) {
        document.getElementById("main").replaceChildren(...next.getElementById("main").childNodes);
        document.getElementById("at").replaceWith(next.getElementById("at"));
        document.title = next.title;
      }
    }
    state.textContent = "updates itself";
  } catch {
    state.textContent = "the daemon does not answer; this is the last that it told";
  }
  setTimeout(renew, every);
};
setTimeout(renew, every);
