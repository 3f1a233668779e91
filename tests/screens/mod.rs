//! Every screen and dialog as it is seen, at every size.

use crate::support::console::*;
use breakglass::model::Kind;

#[test]
fn dump() {
    let Ok(to) = std::env::var("DUMP") else { return };
    std::fs::create_dir_all(&to).unwrap();
    for (w, h) in [(80, 24), (120, 40), (200, 60)] {
        let mut app = with_incident((w, h), 343, recovering_data(Kind::Drill));
        write(&to, &format!("incident-{w}"), &mut app);
        let mut app = with_incident((w, h), 343, recovering_data(Kind::Real));
        press(&mut app, "t");
        write(&to, &format!("timeline-{w}"), &mut app);
        let mut app2 = super::support::console::app((w, h), 343);
        write(&to, &format!("home-{w}"), &mut app2);
        app2.home.incidents = incidents();
        write(&to, &format!("home-open-{w}"), &mut app2);
        press(&mut app2, "j j enter");
        write(&to, &format!("plan-{w}"), &mut app2);
        let mut app = with_incident((w, h), 343, recovering_data(Kind::Real));
        press(&mut app, "n");
        write(&to, &format!("note-{w}"), &mut app);
        press(&mut app, "esc m");
        write(&to, &format!("moment-{w}"), &mut app);
        press(&mut app, "enter");
        write(&to, &format!("choose-{w}"), &mut app);
        press(&mut app, "esc esc ?");
        write(&to, &format!("help-{w}"), &mut app);
    }
}

fn write(to: &str, name: &str, app: &mut breakglass::app::App) {
    let buffer = render(app);
    std::fs::write(format!("{to}/{name}.json"), cells(&buffer)).unwrap();
    std::fs::write(format!("{to}/{name}.txt"), text(&buffer)).unwrap();
}

fn cells(buffer: &ratatui::buffer::Buffer) -> String {
    let mut rows = vec![];
    for y in 0..buffer.area.height {
        let mut row = vec![];
        for x in 0..buffer.area.width {
            let c = &buffer[(x, y)];
            row.push(serde_json::json!([c.symbol(), format!("{:?}", c.fg), format!("{:?}", c.bg), c.modifier.bits()]));
        }
        rows.push(row);
    }
    serde_json::to_string(&rows).unwrap()
}
