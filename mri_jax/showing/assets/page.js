"use strict";
// Tables sort by the value behind a cell, not by its text; NaN and empty cells stay last.
for (const table of document.querySelectorAll(".scroll:not(.map) table")) {
  const heads = [...table.tHead.rows[0].cells];
  heads.forEach((head, column) => head.querySelector("button").addEventListener("click", () => {
    const up = head.getAttribute("aria-sort") !== "ascending";
    heads.forEach((other) => other.removeAttribute("aria-sort"));
    head.setAttribute("aria-sort", up ? "ascending" : "descending");
    const value = (row) => row.cells[column].dataset.value;
    const body = table.tBodies[0];
    const rows = [...body.rows].map((row, place) => ({ row, place, value: value(row) }));
    const blank = (v) => v === "" || v === "nan";
    const numeric = rows.every(({ value: v }) => blank(v) || !Number.isNaN(Number(v)));
    rows.sort((a, b) => {
      if (blank(a.value) || blank(b.value)) return blank(a.value) - blank(b.value) || a.place - b.place;
      const order = numeric ? Number(a.value) - Number(b.value) : a.value.localeCompare(b.value);
      return (up ? order : -order) || a.place - b.place;
    });
    body.append(...rows.map(({ row }) => row));
  }));
}
// Copying takes a script, so its buttons are there only with one.
for (const button of document.querySelectorAll("button[data-copied]")) {
  button.addEventListener("click", async () => {
    await navigator.clipboard.writeText(button.dataset.copied);
    button.textContent = "Copied";
  });
}
const dialog = document.querySelector("dialog");
for (const button of document.querySelectorAll("figure button")) {
  button.addEventListener("click", () => {
    const small = button.querySelector("img");
    const large = dialog.querySelector("img");
    large.src = small.currentSrc;
    large.alt = small.alt;
    dialog.querySelector("p").textContent = small.alt;
    dialog.showModal();
  });
}
dialog.addEventListener("click", () => dialog.close());
