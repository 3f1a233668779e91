//! Every screen at every size, from 1×1 up: no panic, and what does not fit says so.

use super::shots;
use crate::support::console::*;
use breakglass::app::Effect;

/// All sizes of all shots with `BREAKGLASS_SOAK=1`; else each shot at its own quarter of them, so that together every
/// width and every height is drawn.
#[test]
fn no_size_breaks_a_screen() {
    let all = std::env::var_os("BREAKGLASS_SOAK").is_some();
    for (i, shot) in shots().into_iter().enumerate() {
        let mut app = (shot.make)((80, 24));
        let mut at = |w: usize, h: usize| {
            app.size = (w as u16, h as u16);
            render(&mut app);
        };
        for w in 1..=200 {
            if all {
                (1..=60).for_each(|h| at(w, h));
            } else if (w + i) % 8 == 0 {
                at(w, 1 + (w * 7 + i * 13) % 60);
                at(w, 16);
            }
        }
        for h in (1..=60).filter(|h| !all && (h + i) % 4 == 0) {
            at(1 + (h * 37 + i * 11) % 200, h);
            at(60, h);
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
