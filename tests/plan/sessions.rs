//! A session with lines for the other side never runs top to bottom, however its opening is written.

use super::read;
use breakglass::model::plan::BlockRole;
use breakglass::plan::shell_words::pipelines;

/// Ways to open a session. What stands on the next line was written for the other side.
const OPENS: &[&str] = &[
    "ssh host",
    "ssh host | tee session.log",
    "ssh -t host",
    "ssh host -p 2222",
    "ssh -oPreferredAuthentications=publickey host",
    "ssh host # log in first",
    "ssh host 2>/dev/null",
    "ssh host 2>&1 | tee log",
    "ssh host \"\"",
    "ssh $HOST",
    "ssh \"${USER}@${HOST}\"",
    "ssh -J bastion host",
    "ssh \\\n  -p 22 \\\n  host",
    "ssh <db-host>",
    "cd /x && ssh host",
    "cd /x; ssh host",
    "KEY=1 ssh host",
    "(ssh host)",
    "if true; then ssh host; fi",
    "for h in a b; do ssh $h; done",
    "eval ssh host",
    "time ssh host",
    "command ssh host",
    "/usr/bin/ssh host",
    "sshpass -p x ssh host",
    "timeout 600 ssh host",
    "mosh host",
    "autossh host",
    "telnet host",
    "sftp host",
    "aws ssm start-session --target i-0abc",
    "aws ecs execute-command --cluster c --task t --interactive --command /bin/sh",
    "gcloud compute ssh vm-1 --zone z",
    "gcloud sql connect main --user=postgres",
    "az ssh vm -n x -g y",
    "tsh ssh user@node",
    "vagrant ssh",
    "multipass shell vm",
    "fly ssh console -a app",
    "heroku run bash",
    "heroku pg:psql",
    "railway shell",
    "sudo -i",
    "sudo -s",
    "sudo su -",
    "sudo -u postgres -i",
    "sudo -u postgres psql",
    "sudo -E bash",
    "su - postgres",
    "bash -l",
    "/bin/sh",
    "env bash",
    "psql",
    "psql \"$DATABASE_URL\"",
    "PGPASSWORD=$PW psql -h db -U app shop",
    "mysql -u root -p",
    "mongosh",
    "redis-cli -h cache",
    "sqlite3 app.db",
    "python3",
    "rails console",
    "python manage.py dbshell",
    "docker exec -it db bash",
    "docker compose exec db psql -U app",
    "docker run -it ubuntu",
    "docker run --rm -it postgres:15 psql -h db",
    "podman exec -ti c sh",
    "kubectl exec -it pod -- /bin/bash",
    "kubectl -n prod exec -it pod -c app -- bash -l",
    "kubectl run -it --rm x --image=busybox -- sh",
    "kubectl debug -it node/x --image=busybox",
    "oc rsh pod",
    "lxc shell box",
    "chroot /mnt",
    "nsenter -t 1 -m bash",
    "screen -S restore",
    "tmux attach",
    "tmux new -s restore",
];

/// Commands that say what to do, or are fed it: what follows is meant for here.
const DOES: &[&str] = &[
    "ssh host uptime",
    "ssh -p 22 host 'sudo systemctl restart app'",
    "ssh host -p 22 uptime",
    "ssh -fN -L 5432:db:5432 bastion",
    "ssh -N -L 1:2:3 host &",
    "ssh host < script.sh",
    "ssh host <<'EOF'\nuptime\nEOF",
    "cat script.sh | ssh host",
    "ssh-keygen -t ed25519",
    "scp a host:b",
    "gcloud compute ssh vm --command='uptime'",
    "aws ssm send-command --instance-ids i-1",
    "aws ecs execute-command --task t --interactive --command \"pg_dump -Fc shop\"",
    "fly ssh console -C 'ls /data'",
    "heroku run rake db:migrate",
    "heroku pg:backups:restore b001",
    "sudo systemctl stop app",
    "sudo -u postgres pg_ctl stop",
    "sudo -u postgres psql -c 'SELECT 1'",
    "su - postgres -c 'pg_ctl stop'",
    "bash restore.sh",
    "bash -c 'uptime'",
    "sh -lc uptime",
    "curl -s https://example.com/install | bash",
    "psql -c 'SELECT 1'",
    "psql \"$DATABASE_URL\" -Atc 'SELECT 1'",
    "psql -lqt",
    "psql -f a.sql",
    "psql shop < a.sql",
    "gunzip -c dump.gz | psql shop",
    "mysql -u root -e 'SHOW TABLES'",
    "mysql shop < dump.sql",
    "redis-cli -h cache ping",
    "redis-cli --rdb dump.rdb",
    "sqlite3 app.db '.backup b.db'",
    "python3 restore.py",
    "docker exec db pg_dump -Fc shop",
    "docker exec -i db psql -U app -f /x.sql",
    "docker exec -i db psql -U app < dump.sql",
    "docker exec db bash -c 'ls /'",
    "docker run --rm -v $PWD:/b postgres:15 pg_restore -l /b/x",
    "docker run -d --name db postgres:15",
    "kubectl exec pod -- ls",
    "kubectl exec -it pod -- psql -c 'SELECT 1'",
    "kubectl run job --image=busybox",
    "kubectl get pods",
    "chroot /mnt update-grub",
    "tmux new -d -s x 'sleep 9'",
    "screen -dmS x sleep 9",
    "echo 'then run: ssh host'",
    "echo \"$(ssh host uptime)\"",
];

#[test]
fn lines_after_an_opened_session_are_never_run_here() {
    for opener in OPENS {
        let code = format!("{opener}\nrm -rf /srv/data");
        let plan = read(&format!("# P\n\n1. Step\n2. Other\n\n```bash\n{code}\n```\n"));
        let block = &plan.blocks[0];
        assert_eq!(block.role, BlockRole::Run, "{opener:?} is shown as a command");
        assert!(!block.runnable(), "{opener:?}: its later lines would run here");
        assert!(
            block.blocked.as_deref().is_some_and(|w| w.contains("the other side")),
            "{opener:?}: {:?}",
            block.blocked
        );
        // Alone it needs a terminal of its own, and nothing of it can run in the wrong place.
        let plan = read(&format!("# P\n\n1. Step\n2. Other\n\n```bash\n{opener}\n```\n"));
        assert!(plan.blocks[0].interactive, "{opener:?}");
        assert!(plan.blocks[0].blocked.is_none(), "{opener:?}");
    }
}

#[test]
fn commands_that_say_what_to_do_stay_runnable() {
    for command in DOES {
        let plan = read(&format!("# P\n\n1. Step\n2. Other\n\n```bash\n{command}\nls\n```\n"));
        let block = &plan.blocks[0];
        assert!(block.blocked.is_none(), "{command:?}: {:?}", block.blocked);
    }
}

#[test]
fn a_text_is_taken_apart_as_bash_would() {
    let words = |code: &str| -> Vec<Vec<String>> {
        pipelines(code).into_iter().map(|p| p.into_iter().map(|s| s.words.join(" ")).collect()).collect()
    };
    let cases: &[(&str, &[&[&str]])] = &[
        ("a b\nc", &[&["a b"], &["c"]]),
        ("a 'b; c' \"d | e\"", &[&["a b; c d | e"]]),
        ("a | b || c && d & e", &[&["a", "b"], &["c"], &["d"], &["e"]]),
        ("a > out 2>&1 < in", &[&["a"]]),
        ("a &> out; b", &[&["a"], &["b"]]),
        ("a <<E; b\nx | y\nE\nc", &[&["a"], &["b"], &["c"]]),
        ("a \\\n  b # c; d\ne", &[&["a b"], &["e"]]),
        ("a $(b | c; d) e", &[&["a $ e"]]),
        ("a '", &[&["a "]]),
        ("", &[]),
    ];
    for (code, want) in cases {
        assert_eq!(&words(code), want, "{code:?}");
    }
    // Nothing makes it fail, however a text breaks off.
    for code in ["\\", "$(", "\"$(", "<<", "<<'", "2>", "&", "|", "`", "((", "))", "$()", ">&", "<&"] {
        pipelines(code);
    }
}
