"""The page a report is poured into."""

from __future__ import annotations

from string import Template

_STYLE = """
:root { color-scheme:light dark; --ink:#1d2433; --soft:#5b6577; --line:#e3e7ee; --paper:#ffffff; --wash:#f6f8fb;
        --accent:#2456a6; --good:#0a7d5a; --bad:#b3401f; --warn:#d99a16; --warn-wash:#fff6e0; --warn-ink:#5a4108 }
@media (prefers-color-scheme:dark) {
  :root { --ink:#e6e9f0; --soft:#a3adbf; --line:#343c4d; --paper:#1b212d; --wash:#12161f; --accent:#8fb2f0; --good:#58c79c;
          --bad:#f0906f; --warn:#d99a16; --warn-wash:#3a2f12; --warn-ink:#f3dfae } }
* { box-sizing:border-box }
html { scroll-behavior:smooth }
body { margin:0; background:var(--wash); color:var(--ink);
       font:16px/1.6 system-ui,-apple-system,"Segoe UI",Roboto,"Helvetica Neue",Arial,sans-serif }
main { max-width:1080px; margin:0 auto; padding:2.5rem 1.5rem 4rem }
header h1 { font-size:2rem; line-height:1.2; letter-spacing:-.02em; margin:0 0 .5rem }
header p { color:var(--soft); max-width:46rem; margin:.25rem 0; font-size:1.05rem }
nav { display:flex; flex-wrap:wrap; gap:.25rem 1.1rem; margin:1.25rem 0; font-size:.9rem }
nav a { color:var(--accent); text-decoration:none } nav a:hover { text-decoration:underline }
:focus-visible { outline:3px solid var(--accent); outline-offset:2px; border-radius:3px }
.notice { background:var(--warn-wash); border-left:4px solid var(--warn); padding:.75rem 1rem; border-radius:4px;
          color:var(--warn-ink); max-width:none }
.cards { display:grid; grid-template-columns:repeat(auto-fit,minmax(190px,1fr)); gap:.75rem; margin:1.5rem 0 }
.card { background:var(--paper); border:1px solid var(--line); border-top:3px solid var(--accent); border-radius:8px; padding:.8rem 1rem }
.card.good { border-top-color:var(--good) } .card.bad { border-top-color:var(--bad) }
.card span { display:block } .card .label { font-size:.85rem; color:var(--ink) }
.card .value { font-size:1.6rem; font-weight:650; letter-spacing:-.02em; font-variant-numeric:tabular-nums }
.card.good .value { color:var(--good) } .card.bad .value { color:var(--bad) }
.card.good .value::after, .card.bad .value::after { font-size:.78rem; font-weight:600; letter-spacing:0; margin-left:.5rem }
.card.good .value::after { content:"\\2713\\00a0 as hoped" } .card.bad .value::after { content:"\\2717\\00a0 not as hoped" }
.card .detail { font-size:.78rem; color:var(--soft) }
section { background:var(--paper); border:1px solid var(--line); border-radius:10px; padding:1.25rem 1.5rem; margin:1.25rem 0;
          scroll-margin-top:1rem }
h2 { font-size:1.25rem; margin:.1rem 0 .6rem; letter-spacing:-.01em }
section p { max-width:52rem; margin:.4rem 0 }
figure { margin:1.4rem 0 }
figure .frame { overflow-x:auto; background:#fff; border:1px solid var(--line); border-radius:8px; padding:.75rem }
figure img { max-width:100%; height:auto; display:block; margin:0 auto }
figcaption { font-size:.9rem; line-height:1.5; color:var(--soft); margin:.5rem 0; max-width:52rem }
figcaption b { color:var(--ink) }
.scroll { overflow-x:auto }
table { border-collapse:collapse; font-size:.88rem; font-variant-numeric:tabular-nums }
th,td { padding:.32rem 1.1rem .32rem 0; text-align:left; border-bottom:1px solid var(--line); white-space:nowrap; vertical-align:top }
th.n, td.n { text-align:right }
thead th { color:var(--soft); font-weight:600; border-bottom:2px solid var(--line) }
tbody tr:hover { background:var(--wash) }
.settings td { white-space:normal; overflow-wrap:anywhere } .settings th { font-weight:600; color:var(--soft) }
pre { background:var(--wash); border:1px solid var(--line); border-radius:6px; padding:.9rem 1rem; overflow-x:auto; font-size:.84rem; line-height:1.5 }
details { margin-top:.6rem } details summary { cursor:pointer; color:var(--accent); font-size:.9rem }
footer { color:var(--soft); font-size:.82rem; margin-top:2rem }
@media (max-width:640px) {
  main { padding:1.25rem .75rem 3rem } section { padding:1rem } header h1 { font-size:1.6rem }
  figure .frame { padding:.4rem } figure .frame img { max-width:none; width:max(100%,var(--wide)) }
  figure .frame.slides::before { content:"\\2194\\00a0 slide sideways to see all of it"; display:block; position:sticky; left:0;
                                 width:max-content; font-size:.75rem; color:#5b6577 } }
@media print { body { background:#fff; color:#000 } section { break-inside:avoid; border:0; padding:0 } nav,details { display:none } }
"""

PAGE = Template(
    """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<title>$title</title><style>"""
    + _STYLE
    + """</style></head>
<body><main>
<header><h1>$title</h1>$lead</header>
$notice
$verdicts
<nav aria-label="Contents">$contents</nav>
$body
$settings
<footer>Made by sst-editing, $made.</footer>
</main></body></html>
"""
)
