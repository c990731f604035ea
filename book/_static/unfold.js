// The theme makes code that is wider than its box reachable with Tab, but it measures only when the
// page opens or changes its size. Folded code has no size then: measure again when something unfolds.
document.addEventListener("click", (event) => {
  if (event.target.closest("summary, .toggle-button, .admonition-title")) {
    setTimeout(() => window.dispatchEvent(new Event("resize")), 50);
  }
});

// Tables that are wider than their column scroll; make them reachable with Tab as well.
const reachTables = () => {
  for (const table of document.querySelectorAll("table.dataframe")) {
    if (table.scrollWidth > table.clientWidth) table.tabIndex = 0;
    else table.removeAttribute("tabindex");
  }
};
window.addEventListener("load", reachTables);
window.addEventListener("resize", reachTables);
