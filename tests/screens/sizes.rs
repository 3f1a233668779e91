//! Every screen at every size, from 1×1 up: no panic, and what does not fit says so.

use super::shots;
use crate::support::console::*;
use breakglass::app::Effect;

#[test]
fn no_size_breaks_a_screen() {
    for shot in shots() {
        let mut app = (shot.make)((80, 24));
        // Every width and height on the way up, each with several of the other.
        let widths = (1..=200).filter(|w| *w < 90 || w % 7 == 0);
        for w in widths {
            for h in [1, 2, 3, 5, 9, 15, 16, 17, 23, 24, 40, 60] {
                app.size = (w, h);
                render(&mut app);
            }
        }
        for h in 1..=60 {
            for w in [1, 20, 59, 60, 61, 79, 80, 119, 120, 159, 160, 200] {
                app.size = (w, h);
                render(&mut app);
            }
        }
    }
}

#[test]
fn too_small_says_what_it_needs() {
    let mut app = app((59, 16), 0);
    let text = text(&render(&mut app));
    assert!(text.contains("at least 60x16, this is 59x16"), "{text}");
    insta::with_settings!({snapshot_path => "snapshots", prepend_module_to_snapshot => false, omit_expression => true}, {
        let mut small = crate::support::console::app((40, 12), 0);
        insta::assert_snapshot!("too-small-40x12", crate::support::console::text(&render(&mut small)));
    });
}

#[test]
fn too_small_takes_no_keys() {
    let mut app = with_incident((59, 16), 343, recovering_data(breakglass::model::event::Kind::Real));
    let before = app.clone();
    for keys in ["r", "d", "j", "n", "q y", "t", "enter", "C"] {
        let effects = press(&mut app, keys);
        assert!(!effects.iter().any(|e| !matches!(e, Effect::Quit)), "{keys}: {effects:?}");
    }
    assert_eq!(app.dialogs, before.dialogs);
    assert_eq!(app.screens, before.screens);
    assert_eq!(app.incident.unwrap().steps, before.incident.unwrap().steps);
}

#[test]
fn a_resize_keeps_the_selection() {
    let mut app = with_incident((200, 60), 343, recovering_data(breakglass::model::event::Kind::Real));
    press(&mut app, "j j");
    let now = app.now.clone();
    for size in [(60, 16), (80, 24), (30, 5), (120, 40)] {
        breakglass::app::update::update(&mut app, breakglass::app::Msg::Resize(size.0, size.1), now.clone());
        render(&mut app);
        assert_eq!(app.incident.as_ref().unwrap().steps.step, 7, "at {size:?}");
    }
}
