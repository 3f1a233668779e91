//! The words plans are written with, per meaning and in several languages.
//!
//! A stem matches a word that begins with it; `word$` matches the whole word; a stem of several words, or of a script
//! without spaces, matches anywhere. Everything is lower case.

use crate::model::plan::Phase;

/// Whether any of `stems` occurs in the normalised title.
pub fn any(norm: &str, stems: &[&str]) -> bool {
    stems.iter().any(|stem| has(norm, stem))
}

/// Whether one stem occurs.
pub fn has(norm: &str, stem: &str) -> bool {
    if stem.contains(' ') || is_unspaced(stem) {
        return norm.contains(stem);
    }
    match stem.strip_suffix('$') {
        Some(whole) => norm.split(' ').any(|w| w == whole),
        None => norm.split(' ').any(|w| w.starts_with(stem)),
    }
}

/// Whether a stem is of a script that writes no spaces.
fn is_unspaced(stem: &str) -> bool {
    stem.chars().any(|c| ('\u{3040}'..='\u{9fff}').contains(&c))
}

/// Lower case, words of letters and digits joined by single spaces.
pub fn norm(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for word in text.split(|c: char| !c.is_alphanumeric()).filter(|w| !w.is_empty()) {
        if !out.is_empty() {
            out.push(' ');
        }
        out.extend(word.chars().flat_map(char::to_lowercase));
    }
    out
}

/// The word "scenario".
pub const SCENARIO: &[&str] =
    &["scenario", "cenário", "cenario", "escenario", "scénario", "szenario", "сценарий", "场景", "シナリオ"];

/// Phases, most telling first: a title's first word decides, then the first row with a word of the title.
#[rustfmt::skip]
pub const PHASES: &[(Phase, &[&str])] = &[
    (Phase::Close, &["post", "after", "aftermath", "lesson", "retrospective", "close", "closure", "closing", "debrief", "document", "wrap", "encerramento", "cierre", "abschluss", "после", "事后", "复盘"]),
    (Phase::Prevent, &["prevent", "hardening", "prevenção", "prevención", "prévention", "vorbeug", "предотвращ", "预防"]),
    (Phase::Verify, &["verif", "validat", "test", "check", "confirm", "smoke", "verific", "vérif", "überprüf", "prüf", "провер", "验证", "检查"]),
    (Phase::Communicate, &["communicat", "notif", "tell", "inform", "announce", "stakeholder", "status page", "comunica", "kommuni", "benachricht", "уведом", "связ", "通知", "沟通"]),
    (Phase::Contain, &["immediate", "contain", "isolat", "stop", "mitigat", "bleeding", "quarantine", "block", "freeze", "disable", "imediat", "inmediat", "immédiat", "conten", "sofort", "eindämm", "немедлен", "изоляц", "立即", "隔离", "止损"]),
    (Phase::Declare, &["declare", "declaration", "activate", "mobili", "assemble", "declarar", "объяв", "宣布"]),
    (Phase::Detect, &["detect", "identify$", "identification", "symptom", "alert", "detecç", "detecc", "detec", "détect", "erkenn", "обнаруж", "检测", "发现"]),
    (Phase::Assess, &["assess", "triage", "identify", "diagnos", "investigat", "analy", "determine", "evidence", "estimate", "scope", "evaluate", "impact", "avalia", "evalua", "évalu", "bewert", "оцен", "диагност", "评估", "诊断", "排查"]),
    (Phase::Decide, &["choose", "decide", "decision", "select", "pick", "locate"]),
    (Phase::Promote, &["promot", "switch", "cutover", "cut over", "go live"]),
    (Phase::Protect, &["salvage", "backup", "base backup", "snapshot", "re protect", "reprotect"]),
    (Phase::Recover, &["recover", "restor", "failover", "fail over", "failback", "fix", "remedia", "rollback", "roll back", "revert", "resolution", "resolv", "repair", "rebuild", "redeploy", "deploy", "eradicat", "replay", "recupera", "restaura", "rétabl", "récup", "wiederherstell", "восстанов", "恢复", "回滚"]),
];

/// Words that may stand beside a phase word in a title that is only a phase.
#[rustfmt::skip]
pub const FILLERS: &[&str] = &[
    "playbook", "runbook", "step", "steps", "action", "actions", "procedure", "procedures", "process", "phase", "plan", "the", "a", "an",
    "and", "of", "for", "to", "in", "on", "initial", "first", "next", "manual", "automatic", "automated", "if",
    "needed", "response", "incident", "task", "tasks", "activities", "options", "option", "guide", "workflow",
    "checklist", "moment", "new", "take", "results", "what", "came", "commands", "beside", "complete", "and",
    "short", "term", "by", "quick", "rapid", "rapidă", "rápido", "rápida", "rapide", "long", "required", "issue", "problem", "root", "cause", "with", "system", "service", "team",
    "up", "follow", "imediatas", "ações", "acciones", "passos", "pasos", "schritte", "étapes", "шаги", "步骤", "流程",
];

/// Sections that describe and do not recover (S2).
#[rustfmt::skip]
pub const DESCRIPTIVE: &[&str] = &[
    "setup$", "installation", "getting started", "quick start", "configuração inicial", "configuración inicial",
    "overview", "architecture", "component", "backup strateg", "backup schedule", "backup inventory",
    "backup polic", "backup type", "backup storage", "backup location", "backup configuration", "backup retention",
    "backup procedure", "backup script", "backup system", "backup plan", "backup method", "backup process",
    "backup coverage", "backup command", "code backup", "database backup$", "database backups", "manual backup",
    "automated backup", "file storage backup", "configuration backup", "automation$", "monitoring", "metric",
    "cost", "retention", "compliance", "history$", "changelog", "reference$", "references", "related", "resource",
    "future", "limitation", "documentation", "environment variable", "introduction", "purpose", "scope$",
    "table of contents", "contents$", "glossary", "definition", "assumption", "infrastructure$", "tech stack",
    "technology", "dependencies", "appendix", "quick reference", "quick links", "useful links", "links$", "faq",
    "best practice", "maintenance", "improvement", "data classification", "inventory", "tooling", "tools$",
    "recovery tools", "scripts$", "tl dr", "tldr", "annexe", "anexo", "security hardening", "high availability", "roles and", "audit", "review", "revision",
    "document control", "version history", "approval", "hosting", "hardware", "key performance", "kpi", "dashboard",
    "logging$", "health monitoring", "what is backed up", "storage costs", "terminology", "background", "about",
    "principles", "strategy$", "strategies", "backups$", "backup$", "replication setup", "visão geral",
    "arquitetura", "política de backup", "estratégia", "monitoramento", "retenção", "referências", "resumen",
    "arquitectura", "estrategia", "políticas", "aperçu", "übersicht", "überblick", "архитектур", "обзор",
    "мониторинг", "概述", "架构", "备份策略", "监控", "参考", "附录",
];

/// Words that make a descriptive-sounding title a procedure after all.
#[rustfmt::skip]
pub const RECOVERING: &[&str] = &[
    "recover", "restor", "failover", "fail over", "failback", "rollback", "roll back", "rebuild", "recupera",
    "restaura", "rétabl", "restauration", "wiederherstell", "восстанов", "откат", "恢复", "还原", "回滚", "故障转移",
];

/// Objectives (S3).
#[rustfmt::skip]
pub const OBJECTIVES: &[&str] = &[
    "rto", "rpo", "recovery objective", "recovery time", "recovery point", "objectives", "service level", "slo$",
    "slos$", "sla$", "slas$", "recovery target", "objetivos", "ziele", "цели", "目标",
];

/// Severity matrices and classifications (S4).
#[rustfmt::skip]
pub const SEVERITY: &[&str] = &[
    "severity", "classification", "triage matrix", "priority level", "incident level", "incident priorit",
    "incident type", "severidade", "severidad", "gravité", "schweregrad", "классификац", "критичност", "严重", "分级",
    "等级",
];

/// People to reach (S5).
#[rustfmt::skip]
pub const CONTACTS: &[&str] = &[
    "contact", "escalation", "response team", "recovery team", "dr team", "on call$", "oncall", "call tree",
    "phone", "who to call", "team roles", "team member", "roles", "responsibilit", "stakeholder", "vendor",
    "contato", "contacto", "escalonamento", "ansprechpartner", "kontakt", "контакт", "эскалац", "联系", "升级",
];

/// Messages (S6).
#[rustfmt::skip]
pub const TEMPLATES: &[&str] = &[
    "template", "communication plan", "communication channel", "communication strateg", "communication protocol",
    "internal communication", "external communication", "communications$", "notification$", "notifications",
    "status update", "modelos de comunica", "plano de comunica", "plan de comunica", "kommunikationsplan", "шаблон",
    "沟通", "模板",
];

/// Exercises (S7).
#[rustfmt::skip]
pub const DRILLS: &[&str] = &[
    "test$", "tests", "testing", "drill", "exercise", "tabletop", "rehearsal", "game day", "gameday",
    "mini restore", "schedule$", "simulation", "chaos", "teste$", "testes", "prueba", "simulacro", "exercice",
    "übung", "тестирован", "учени", "учеб", "演练", "测试",
];

/// Afterwards (S8).
#[rustfmt::skip]
pub const AFTERWARDS: &[&str] = &[
    "post incident", "post recovery", "post mortem", "postmortem", "post failover", "post restore", "post event",
    "post disaster", "post rollback", "post deploy", "after incident", "after action", "lessons learned", "recovery validation",
    "recovery checklist", "validation checklist", "readiness", "pre flight", "preflight", "checklist$", "pós incidente", "pos incidente", "post incidente",
    "nach dem", "после инцидента", "事后", "复盘",
];

/// Sections and labels that inform and do not act (S10).
#[rustfmt::skip]
pub const INFORMING: &[&str] = &[
    "symptom", "impact", "meaning", "cause", "causes", "trigger", "prevention", "preventive", "preventative",
    "prevent", "context", "prerequisite", "precondition", "requirements", "when to use", "when to ", "why this", "when this", "expected", "automatic recovery", "automatically",
    "automatic mitigation", "automatic failover", "auto recovery", "auto healing", "description", "indicator",
    "signs$", "note$", "notes", "limitation", "background", "example$", "examples", "definition", "severity",
    "what happens", "what it means", "affected", "related", "see also", "references", "false positive", "risks$",
    "risk$", "warning", "purpose", "scope$", "who$", "owner", "tools needed", "you will need", "before you begin",
    "before you start", "known issue", "when not to", "failure class", "failure type", "failure categor", "quand ", "cuándo ", "quando ", "wann ", "possible cause", "pros$", "cons$", "advantages", "disadvantages", "success criteria",
    "criteria", "metrics", "target", "rto", "rpo", "objective", "likelihood", "probability", "dependencies",
    "sintomas", "síntomas", "symptômes", "impacto", "causa", "prevenção", "prevención",
    "pré requisitos", "requisitos", "ursache", "auswirkung", "voraussetzung", "симптом", "причин", "предотвращ",
    "влияни", "症状", "影响", "原因", "预防", "前提",
];

/// Labels under which what follows is done.
#[rustfmt::skip]
pub const ACTING: &[&str] = &[
    "step", "action", "procedure", "instruction", "resolution", "resolve", "recovery", "restore", "failover",
    "rollback", "fix", "mitigation", "mitigate", "remediation", "response", "solution", "workaround", "how to",
    "commands", "checklist", "procedimento", "procedimiento", "passos", "pasos", "ações", "acciones", "solução",
    "solución", "étapes", "procédure", "schritte", "maßnahmen", "lösung", "шаги", "действия", "решение", "步骤", "操作",
    "处理", "解决",
];

/// Parents whose children are scenarios (R3).
#[rustfmt::skip]
pub const SCENARIO_PARENTS: &[&str] = &[
    "scenarios", "common incidents", "common issues", "common problems", "common failures", "common alerts",
    "specific incidents", "known issues", "known incidents", "incident types", "incident playbooks",
    "incident runbooks", "incident procedures", "incident response procedures", "recovery procedures",
    "recovery procedure$", "recovery runbooks", "recovery runbook", "recovery playbooks", "restore procedures",
    "restoration procedures", "rollback procedures", "failover procedures", "emergency procedures",
    "response procedures", "runbooks", "playbooks", "dr runbook", "dr procedures", "failure modes",
    "failure scenarios", "alerts$", "recovery steps by", "proceduri de", "procedure di", "scenari ", "scenarii", "common errors", "erreurs courantes", "problèmes courants", "problemas comunes", "erros comuns", "errores comunes", "häufige", "typische fehler", "典型故障", "常见失败", "常见故障", "cenários", "cenarios", "escenarios", "scénarios",
    "szenarien", "procedimentos de recupera", "procedimientos de recupera", "procédures de", "problemas comuns",
    "сценарии", "процедуры восстановления", "场景", "恢复流程", "恢复步骤", "常见问题", "故障处理",
];

/// What can happen: a heading with one of these that owns steps is a scenario (R7).
#[rustfmt::skip]
pub const FAILURES: &[&str] = &[
    "outage", "failure", "loss$", "losing", "lost$", "corrupt", "breach", "crash", "down$", "unavailable",
    "deletion", "deleted", "leak", "ransomware", "attack", "compromise", "expired", "exhaust", "full$",
    "unreachable", "unresponsive", "not responding", "degraded", "degradation", "security incident", "stuck",
    "split brain", "falha", "perda", "queda", "fallo", "pérdida", "caída", "panne", "perte", "ausfall", "verlust",
    "сбой", "отказ", "потер", "утечк", "故障", "丢失", "损坏", "宕机",
];

/// Words that say something is wrong: a heading with one of these describes trouble, whatever else it names.
#[rustfmt::skip]
pub const TROUBLE: &[&str] = &[
    "not ", "error", "fails$", "failing", "failed", "slow$", "missing", "timeout", "timing out", "refused", "denied",
    "cannot", "unable", "too many", "too high", "spike", "backlog", "won t", "doesn t",
];

/// Titles of a generic process: their numbered siblings are steps of one runbook, not scenarios (R8).
#[rustfmt::skip]
pub const PROCESS: &[&str] = &[
    "confirm", "declare", "assign", "close", "order", "detect", "assess", "triage", "identify", "contain",
    "eradicate", "recover$", "restore$", "verify", "validate", "communicate", "notify", "stop", "choose", "decide",
    "promote", "take$", "tell", "salvage", "prepare", "check", "update", "create", "run$", "start", "stand",
    "switch", "cut", "review", "document", "monitor", "rotate", "revoke", "isolate", "investigate", "mitigate",
    "announce", "gather", "collect", "scale", "drain", "cleanup", "clean", "post", "prerequisite", "before",
    "after", "install", "configure", "set$", "provision", "deploy", "apply", "import", "export", "download",
    "inform", "escalate", "initial", "immediate", "step", "phase", "ensure", "enable", "disable", "freeze",
    "resume", "replay", "locate", "find", "get$", "obtain", "clone", "copy", "move", "point$", "repoint", "flip",
    "open$", "connect", "log$", "login", "access", "navigate", "select", "wait", "test", "reconcile", "rebuild$",
    "preserve", "analysis", "recovery$", "verification", "detection", "containment", "eradication", "diagnosis",
    "resolution",
];

/// Verbs an instruction begins with; a bullet list whose lines mostly begin so is a list of things to do.
#[rustfmt::skip]
pub const IMPERATIVES: &[&str] = &[
    "activate", "add", "alert", "analyze", "apply", "ask", "assess", "assign", "block", "bring", "call", "cancel",
    "change", "check", "choose", "clear", "clone", "close", "collect", "communicate", "compare", "configure",
    "confirm", "connect", "contact", "copy", "create", "cut", "deactivate", "declare", "decide", "delete", "deploy",
    "determine", "disable", "document", "download", "drain", "drop", "enable", "ensure", "escalate", "establish",
    "estimate", "evaluate", "execute", "export", "extract", "fail", "fetch", "find", "fix", "flip", "flush",
    "follow", "force", "gather", "get", "go", "identify", "implement", "import", "increase", "inform", "initiate",
    "inspect", "install", "invalidate", "investigate", "isolate", "issue", "keep", "kill", "launch", "let", "list",
    "locate", "lock", "log", "look", "make", "mark", "merge", "migrate", "monitor", "mount", "move", "navigate",
    "notify", "obtain", "open", "patch", "pause", "perform", "pick", "ping", "point", "post", "prepare", "preserve",
    "promote", "provide", "provision", "publish", "pull", "push", "put", "re", "reboot", "rebuild", "recover",
    "recreate", "redeploy", "redirect", "reduce", "refresh", "reindex", "reinstall", "remove", "replace", "replay",
    "reroute", "reset", "resolve", "restart", "restore", "resume", "retrieve", "retry", "revert", "review",
    "revoke", "roll", "rollback", "rotate", "route", "run", "save", "scale", "schedule", "search", "select", "send",
    "set", "shut", "start", "stop", "submit", "suspend", "switch", "sync", "take", "tell", "test", "trace",
    "transfer", "trigger", "try", "turn", "unblock", "update", "upgrade", "upload", "use", "validate", "verify",
    "wait", "warn", "watch", "work", "write", "verificar", "verifique", "restaurar", "restaure", "executar",
    "execute", "reiniciar", "reinicie", "notificar", "notifique", "identificar", "identifique", "acessar", "acesse",
    "comprobar", "ejecutar", "contactar", "prüfen", "starten", "stoppen", "vérifier", "restaurer", "проверить",
    "запустить", "восстановить", "остановить",
];

/// Metadata labels that are neither steps nor scenarios.
#[rustfmt::skip]
pub const METADATA: &[&str] = &[
    "severity", "priority", "rto", "rpo", "recovery time", "recovery point", "impact", "likelihood", "probability",
    "owner", "author", "version", "document version", "last updated", "last reviewed", "last tested", "updated",
    "reviewed", "next review", "approved", "status", "date", "estimated", "time estimate", "response time",
    "audience", "category", "tier", "duration", "frequency", "severidade", "severidad", "prioridade", "prioridad",
];
