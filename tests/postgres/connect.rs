//! Addresses of databases: what is understood, and that no password gets out.

use std::io::{Read, Write};
use std::net::TcpListener;
use std::time::Duration;

use breakglass::model::Secret;
use breakglass::postgres::Database;
use breakglass::postgres::connect::{quote_ident, quote_literal};

use crate::support::cluster::block_on;

fn parse(url: &str) -> Database {
    Database::from_url(&Secret::new(url)).unwrap()
}

#[test]
fn urls_of_tcp_and_sockets_are_understood() {
    let d = parse("postgres://app:s%40cret@db.example:6432/shop?sslmode=require");
    assert_eq!((d.host(), d.port(), d.user(), d.name()), ("db.example", 6432, "app", "shop"));
    assert_eq!(d.password().unwrap().expose(), "s@cret");
    for url in ["postgresql:///shop?host=/run/pg&port=5433&user=app", "postgres://app@%2Frun%2Fpg:5433/shop"] {
        let d = parse(url);
        assert_eq!((d.host(), d.port(), d.user(), d.name()), ("/run/pg", 5433, "app", "shop"), "{url}");
        assert!(d.is_socket());
        assert_eq!(d.options().unwrap().get_socket().unwrap().to_str(), Some("/run/pg"));
    }
    let d = parse("postgres://app@[::1]:5432/shop");
    assert_eq!(d.host(), "::1");
    let again = parse(&parse("postgres:///sh%20op?host=/run/p%20g&user=a%26b").url());
    assert_eq!((again.host(), again.user(), again.name()), ("/run/p g", "a&b", "sh op"));
}

#[test]
fn a_bad_url_names_what_is_wrong_and_never_itself() {
    for (url, part) in [
        ("mysql://root:hunter22@h/d", "postgres://"),
        ("postgres://u:hunter22@h:port/d", "port"),
        ("postgres://u:hunter22%zz@h/d", "password"),
        ("postgres://u:hunter22@a,b/d", "several hosts"),
    ] {
        let e = Database::from_url(&Secret::new(url)).unwrap_err();
        let text = e.to_string();
        assert!(text.contains(part), "{url}: {text}");
        assert!(!text.contains("hunter22"), "{text}");
        assert_eq!(e.kind.exit_code(), 2);
    }
}

#[test]
fn a_failed_connection_names_the_place_and_not_the_password() {
    let d = parse("postgres://app:hunter22@127.0.0.1:1/shop");
    let e = block_on(d.connect()).unwrap_err();
    let text = format!("{e} {e:?} {d} {d:?} {}", d.url());
    assert!(text.contains("127.0.0.1:1") && text.contains("shop"), "{text}");
    assert!(!text.contains("hunter22"), "{text}");
}

/// As a pooler that is paused: the login succeeds, and no question is ever answered.
#[test]
fn a_pooler_that_takes_the_login_and_nothing_more_costs_the_limit() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let d = parse(&format!("postgres://app@{}/shop?sslmode=disable", listener.local_addr().unwrap()));
    // On a machine that is busy the login alone may take the shorter ones.
    for limit in [1, 10, 60] {
        let listener = listener.try_clone().unwrap();
        let (done, over) = std::sync::mpsc::channel::<()>();
        let pooler = std::thread::spawn(move || -> std::io::Result<u8> {
            let (mut c, _) = listener.accept()?;
            let mut length = [0; 4];
            c.read_exact(&mut length)?;
            let mut startup = vec![0; u32::from_be_bytes(length) as usize - 4];
            c.read_exact(&mut startup)?;
            // AuthenticationOk and ReadyForQuery, idle.
            c.write_all(b"R\0\0\0\x08\0\0\0\0Z\0\0\0\x05I")?;
            let mut question = [0; 1];
            c.read_exact(&mut question)?;
            let _ = over.recv();
            Ok(question[0])
        });
        let (said, answer) = std::sync::mpsc::channel();
        let d = d.clone();
        std::thread::spawn(move || said.send(block_on(d.connect_within(Duration::from_secs(limit))).unwrap_err()));
        let e = answer.recv_timeout(Duration::from_secs(limit + 60)).expect("it waits forever");
        drop(done);
        assert!(e.to_string().contains(&format!("no answer within {limit} s")), "{e}");
        if pooler.join().unwrap().is_ok_and(|question| question == b'Q') {
            return;
        }
    }
    panic!("it was never logged in and asked");
}

#[test]
fn names_and_texts_are_quoted_for_sql() {
    assert_eq!(quote_ident("we\"ird"), "\"we\"\"ird\"");
    assert_eq!(quote_literal("O'Neil"), "'O''Neil'");
    assert_eq!(quote_literal("a\\b'"), " E'a\\\\b'''");
}
