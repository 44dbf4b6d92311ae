// Says when a part of the page that is asked for every few seconds could not be had, until it can be had again.

const asked = new Map(); // elements that are asked for again, and when they were last up to date
const failing = new Map(); // those that could not be had, and why
const loaded = Date.now();
const notice = document.createElement("p");
notice.id = "not-updated";
notice.className = "notice";
notice.setAttribute("role", "status");
notice.hidden = true;
document.getElementById("main").prepend(notice);

function isAskedAgain(element) {
  return (element.getAttribute("hx-trigger") || "").startsWith("every ");
}

function show() {
  for (const known of [asked, failing]) for (const each of known.keys()) if (!each.isConnected) known.delete(each);
  notice.hidden = failing.size === 0;
  if (notice.hidden) return;
  const [element, why] = [...failing].at(-1);
  const since = new Date(asked.get(element) ?? loaded).toISOString().slice(11, 16);
  const words = `Not updated since ${since} UTC: ${why}; trying again.`;
  if (notice.textContent !== words) notice.textContent = words; // once, not every second, to those who listen
}

function note(event, why) {
  const element = event.detail.elt;
  if (!isAskedAgain(element)) return;
  failing.set(element, why);
  show();
}

document.addEventListener("htmx:responseError", (event) => note(event, `the server answers ${event.detail.xhr.status}`));
for (const name of ["htmx:sendError", "htmx:timeout"]) {
  document.addEventListener(name, (event) => note(event, "the server does not answer"));
}
document.addEventListener("htmx:afterRequest", (event) => {
  if (!event.detail.successful) return;
  asked.set(event.detail.elt, Date.now());
  failing.delete(event.detail.elt);
  show();
});
