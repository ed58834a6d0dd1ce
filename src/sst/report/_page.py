"""The page a report is poured into."""

from __future__ import annotations

from string import Template

_STYLE = """
:root { --ink:#1d2433; --soft:#5b6577; --line:#e3e7ee; --paper:#ffffff; --wash:#f6f8fb; --accent:#2456a6;
        --good:#0a7d5a; --bad:#b3401f; }
* { box-sizing:border-box }
body { margin:0; background:var(--wash); color:var(--ink);
       font:16px/1.6 system-ui,-apple-system,"Segoe UI",Roboto,"Helvetica Neue",Arial,sans-serif }
main { max-width:1080px; margin:0 auto; padding:2.5rem 1.5rem 4rem }
header h1 { font-size:2rem; line-height:1.2; letter-spacing:-.02em; margin:0 0 .5rem }
header p { color:var(--soft); max-width:46rem; margin:.25rem 0 }
nav { display:flex; flex-wrap:wrap; gap:.25rem 1.1rem; margin:1.25rem 0; font-size:.9rem }
nav a { color:var(--accent); text-decoration:none } nav a:hover { text-decoration:underline }
.notice { background:#fff6e0; border-left:4px solid #d99a16; padding:.75rem 1rem; border-radius:4px; color:#5a4108; max-width:none }
.cards { display:grid; grid-template-columns:repeat(auto-fit,minmax(170px,1fr)); gap:.75rem; margin:1.5rem 0 }
.card { background:var(--paper); border:1px solid var(--line); border-top:3px solid var(--accent); border-radius:8px; padding:.8rem 1rem }
.card.good { border-top-color:var(--good) } .card.bad { border-top-color:var(--bad) }
.card span { display:block } .card .label { font-size:.78rem; color:var(--soft) }
.card .value { font-size:1.6rem; font-weight:650; letter-spacing:-.02em; font-variant-numeric:tabular-nums }
.card.good .value { color:var(--good) } .card.bad .value { color:var(--bad) }
.card .detail { font-size:.78rem; color:var(--soft) }
section { background:var(--paper); border:1px solid var(--line); border-radius:10px; padding:1.25rem 1.5rem; margin:1.25rem 0 }
h2 { font-size:1.2rem; margin:.1rem 0 .6rem; letter-spacing:-.01em }
section p { max-width:52rem; margin:.4rem 0 }
figure { margin:1.1rem 0; } figure img { max-width:100%; height:auto; display:block; margin:0 auto }
figcaption { font-size:.88rem; color:var(--soft); margin:.35rem 0 }
.scroll { overflow-x:auto }
table { border-collapse:collapse; font-size:.88rem; font-variant-numeric:tabular-nums }
th,td { padding:.32rem .8rem .32rem 0; text-align:right; border-bottom:1px solid var(--line); white-space:nowrap }
thead th { color:var(--soft); font-weight:600; border-bottom:2px solid var(--line) }
tbody th, td:first-child, th:first-child, .settings th, .settings td { text-align:left }
.settings td { white-space:normal }
pre { background:var(--wash); border:1px solid var(--line); border-radius:6px; padding:.9rem 1rem; overflow-x:auto; font-size:.84rem; line-height:1.5 }
details summary { cursor:pointer; color:var(--accent); font-size:.9rem; margin-top:.6rem }
footer { color:var(--soft); font-size:.82rem; margin-top:2rem }
@media print { body { background:#fff } section { break-inside:avoid; border:0 } nav,details { display:none } }
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
