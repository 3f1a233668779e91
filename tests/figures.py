"""The figures of `breakglass report --json`, computed from the journals alone and by other means: figures.py HOME [SINCE]."""
import datetime, json, pathlib, statistics, sys

home, since = pathlib.Path(sys.argv[1]), sys.argv[2] if len(sys.argv) > 2 else ""
cases = []
for path in sorted(home.glob("incidents/*/journal.jsonl")):
    records = [json.loads(line) for line in path.read_text().splitlines()]
    events = [dict(e, seq=r["seq"]) for r in records for e in r["events"]]
    last = {e["type"]: e for e in events}
    opened, at = events[0], last.get("impact_started", {}).get("at") or records[0]["occurred_at"]
    runs = {e["seq"]: e["action"] for e in events if e["type"] == "run_requested"}
    ends = [(runs[e["run"]], e["outcome"]) for e in events if e["type"] == "run_finished"]
    cases.append(dict(opened=opened, at=at, back=last.get("service_restored", {}).get("at"), loss=last.get("loss_measured", {}).get("loss"),
                      closed="incident_closed" in last, table="tabletop_began" in last, judged=last.get("drill_judged", {}).get("passed"), ends=ends))

def ms(text):
    return int(datetime.datetime.fromisoformat(text.replace("Z", "+00:00")).timestamp() * 1_000_000 + 0.5) // 1000

def share(verdicts):
    verdicts = [v for v in verdicts if v is not None]
    return {"good": sum(verdicts), "of": len(verdicts)}

def figures(group):
    real = [c for c in group if c["opened"]["kind"] == "real"]
    drills = [c for c in group if c["opened"]["kind"] == "drill" and c["closed"]]
    took = {id(c): ms(c["back"]) - ms(c["at"]) for c in real if c["back"]}
    starts = sorted(ms(c["at"]) for c in real)
    def rto(c):
        limit = c["opened"].get("rto_ms")
        if limit is None or (id(c) not in took and not c["closed"]):
            return None
        return id(c) in took and took[id(c)] <= limit
    def rpo(c):
        limit = c["opened"].get("rpo_ms")
        return None if limit is None or not c["loss"] else c["loss"]["window_ms"] <= limit
    def ended(*names):
        known = {"succeeded": True, "failed": False}
        return share([known.get(o) for c in real for a, o in c["ends"] if a in names])
    return {
        "incidents": len(real), "open": sum(not c["closed"] for c in real),
        "mttr_ms": int(statistics.mean(took.values())) if took else None, "longest_ms": max(took.values(), default=None),
        "mtbf_ms": (starts[-1] - starts[0]) // (len(starts) - 1) if len(starts) > 1 else None,
        "rto": share([rto(c) for c in real]), "rpo": share([rpo(c) for c in real]),
        "lost_ms": sum(c["loss"]["window_ms"] for c in real if c["loss"]),
        "lost_rows": sum(sum(c["loss"].get("rows", {}).values()) for c in real if c["loss"]),
        "backups": ended("backup create"), "restores": ended("pitr restore", "pitr partial", "backup restore"),
        "drills": share([c["judged"] is True for c in drills if not c["table"]]),
        "tabletops": share([c["judged"] is True for c in drills if c["table"]]),
    }

def by(name):
    groups = {}
    for c in cases:
        groups.setdefault(name(c), []).append(c)
    return {k: figures(v) for k, v in sorted(groups.items())}

cases = [c for c in cases if c["at"] >= since]
print(json.dumps({
    "all": figures(cases), "scenarios": by(lambda c: c["opened"]["scenario"]), "months": by(lambda c: c["at"][:7]),
    "quarters": by(lambda c: f"{c['at'][:4]} Q{(int(c['at'][5:7]) + 2) // 3}"), "years": by(lambda c: c["at"][:4]),
}))
