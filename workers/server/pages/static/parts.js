// Takes the parts of an answer that differ from those of the page, but leaves alone a part in which someone is at work.

const waiting = document.createElement("p");
waiting.id = "not-shown";
waiting.className = "notice";
waiting.setAttribute("role", "status");
waiting.hidden = true;
document.getElementById("main").prepend(waiting);

let left = false; // whether a part of the last answer is not shown

function isInUse(part) {
  if ([...part.querySelectorAll("details[open]")].some((each) => !each.hasAttribute("data-open"))) return true;
  const focused = document.activeElement;
  return part.contains(focused) && !focused.id;
}

function replace(now, next) {
  const focused = now.contains(document.activeElement) ? document.activeElement.id : "";
  now.replaceWith(next);
  htmx.process(next);
  if (focused) document.getElementById(focused)?.focus({ preventScroll: true });
}

function insert(next, before) {
  const list = document.getElementById("run-list");
  const place = before.map((each) => document.getElementById(each.id)).find((each) => each);
  list.insertBefore(next, place ?? null);
  document.getElementById("no-runs")?.remove();
  htmx.process(next);
}

function take(fragment) {
  const parts = [...fragment.querySelectorAll("[data-version]")];
  parts.forEach((next, place) => {
    const now = document.getElementById(next.id);
    if (!now) insert(next, parts.slice(place + 1));
    else if (now.dataset.version === next.dataset.version) return;
    else if (isInUse(now)) left = true;
    else replace(now, next);
  });
}

document.addEventListener("htmx:oobBeforeSwap", (event) => {
  if (event.detail.target.id !== "night-parts") return;
  event.detail.shouldSwap = false;
  left = false;
  take(event.detail.fragment);
});

document.addEventListener("htmx:afterSwap", (event) => {
  if (event.detail.target.id !== "night-state") return;
  if (left) document.getElementById("seen").value = ""; // so that all of it comes again
  if (waiting.hidden === !left) return;
  waiting.hidden = !left;
  waiting.innerHTML = "";
  if (!left) return;
  const link = document.createElement("a");
  link.href = location.pathname + location.search;
  link.textContent = "Show it now";
  waiting.append("There is something new in a part of this page that you have open. ", link);
});
