// A field that was changed before this page listened, or that the browser filled in again, is announced as changed.

function isChanged(field) {
  if (field.type === "checkbox" || field.type === "radio") return field.checked !== field.defaultChecked;
  if (field.type === "select-one") {
    const served = [...field.options].findLastIndex((option) => option.defaultSelected);
    return field.options.length > 0 && field.selectedIndex !== Math.max(served, 0);
  }
  return "defaultValue" in field && field.value !== field.defaultValue;
}

document.addEventListener("DOMContentLoaded", () => {
  for (const element of document.querySelectorAll("select[hx-get], form[hx-trigger^='change']")) {
    const changed = [...(element.elements ?? [element])].find(isChanged);
    changed?.dispatchEvent(new Event("change", { bubbles: true })); // one is enough: the whole form is sent
  }
});
