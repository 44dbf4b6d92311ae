// Fields that are changed while the page's scripts are still on their way are announced as changed once more when they are
// here. This file alone is not deferred: the page shows no field before it has run.

const early = new Set();

function keep(event) {
  early.add(event.target);
}

document.addEventListener("change", keep, true);
document.addEventListener("DOMContentLoaded", () => {
  setTimeout(() => { // after the listeners of all scripts
    document.removeEventListener("change", keep, true);
    for (const field of early) {
      if (field.isConnected) field.dispatchEvent(new Event("change", { bubbles: true }));
    }
  });
});
