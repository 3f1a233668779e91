#!/usr/bin/env python3
"""usage: checker.py DIR REPORT CONNINFO: was the recovery right? 0 yes, 1 no (reasons on stdout). Needs Python and psql only.
DIR holds injector.jsonl (what was damaged) and writers.jsonl (what was acknowledged), REPORT is a journal or its JSON export,
CONNINFO the recovered database. A commit lies between lsn_before and lsn_after; going back stops just before the moment."""
import csv, io, json, os, subprocess, sys
from datetime import datetime as d, timedelta
def lines(name): return [json.loads(l) for l in open(name, encoding="utf-8") if l.strip()]
def sql(query):
    env = {"PATH": os.environ["PATH"], "PGTZ": "UTC"}
    out = subprocess.run([os.environ.get("PSQL", "psql"), "-Xq", "--csv", "-t", "-d", sys.argv[3], "-c", query], env=env, capture_output=True, text=True)
    if out.returncode: sys.exit(out.stderr or "psql failed")
    return list(csv.reader(io.StringIO(out.stdout)))
def lsn(text): high, low = text.split("/"); return int(high, 16) << 32 | int(low, 16)
bad, said, chosen, loss, promoted = [], 0, None, None, None
def need(ok, text): bad.extend([] if ok else [text])
damage, log = [l for l in lines(sys.argv[1] + "/injector.jsonl") if l["line"] == "damage"], lines(sys.argv[1] + "/writers.jsonl")
report = open(sys.argv[2], encoding="utf-8").read()
try: report = json.loads(report)["journal"]["lines"]
except (ValueError, KeyError): report = report.splitlines()
events = [e for r in report for e in (json.loads(r) if isinstance(r, str) else r)["events"]]
rows = lambda: sum(n for t, n in loss["loss"]["rows"].items() if t in ("orders", "public.orders")) if loss else 0
for e in events:  # what a recovery in service had lost is lost still when another moment is chosen
    if e["type"] == "moment_chosen": said, chosen, loss, promoted = said + (rows() if promoted else 0), e, None, None
    loss, promoted = (e if e["type"] == "loss_measured" else loss), (e if e["type"] == "promoted" else promoted)
if not chosen or not loss: sys.exit("the report names no moment or no loss")
said, last, lost, unsure = said + rows(), max([1] + [l["generation"] for l in log]), 0, 0
by, value = chosen["target"]["by"], chosen["target"].get("value")
if by == "xid":  # the moment is the commit of a transaction one of the logs knows
    spans = [(lsn(l["lsn_before"]), lsn(l["lsn_after"])) for l in damage + log if l["xid"] == value and l["generation"] == 0 and l.get("lsn_after")]
    if not spans: sys.exit("the moment is in neither log")
    moment = spans[0]
elif by == "lsn": moment = (lsn(value), lsn(value))
def side(l):  # -1 before the moment, 1 after it, 0 too close to tell
    if by == "time":  # times are taken before the commit is written: 10 ms of doubt
        if not l.get("committed"): return 0
        gap = d.fromisoformat(l["committed"][:-1]) - d.fromisoformat(value[:-1])
        return 0 if abs(gap) <= timedelta(milliseconds=10) else -1 if gap < timedelta(0) else 1
    if l.get("lsn_after") and lsn(l["lsn_after"]) <= moment[0]: return -1
    return 1 if lsn(l["lsn_before"]) >= moment[1] else 0
there = {(int(w), int(n)): (int(i), int(t), a) for w, n, i, t, a in sql("SELECT writer, n, id, total_cents, address FROM orders WHERE writer IS NOT NULL")}
for l in log:  # every order before the moment is there, none after it, every one since the switch is there
    key, row = (l["writer"], l["n"]), (l["order"], l["total_cents"], l["address"])
    must = l["known"] == "committed" and (l["generation"] == last or l["generation"] == 0 and side(l) < 0)
    need(not must or there.get(key) == row, f"order {key} is missing or changed")
    need(l["generation"] > 0 or side(l) <= 0 or key not in there, f"order {key} came after the moment and is there")
    if l["generation"] < last and key not in there: lost, unsure = lost + (l["known"] == "committed"), unsure + (l["known"] != "committed")
need(set(there) <= {(l["writer"], l["n"]) for l in log}, "there are orders nobody sent")
gone = {l["order"] for l in log if l["generation"] == 0 and (l["writer"], l["n"]) not in there}  # their ids may be in use again
good = {}  # the first damage of a row knows its good values
for l in damage:
    for i, old, _ in l["rows"] if l.get("lsn_after") else []: good.setdefault((l["table"], tuple(l["columns"])), {}).setdefault(i, old)
for (table, columns), rows in good.items():
    text = " || '|' || ".join(c + "::text" for c in columns)
    now = dict(sql(f"SELECT id, left(encode(sha256(convert_to({text}, 'UTF8')), 'hex'), 32) FROM {table}"))
    wrong = [i for i, old in rows.items() if now.get(str(i)) != old and not (table == "public.orders" and i in gone)]
    need(not wrong, f"{len(wrong)} damaged rows of {table} are wrong, such as {wrong[:3]}")
need(good and all(l["generation"] == 0 for l in damage), "there was no damage, or some after the switch")
need(lost <= said <= lost + unsure, f"{said} lost orders reported, {lost} lost")
print("\n".join(bad[:20]) if bad else f"right: {sum(map(len, good.values()))} damaged rows, {len(there)} orders there, {lost} lost as reported")
sys.exit(1 if bad else 0)
