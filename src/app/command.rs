//! Every command of the console, once: name, one line of help, where it works, what it can do, default keys.
//!
//! Hints, `?`, `:`, the key file and the README's key table are all made from [`COMMANDS`]. Whether a command is
//! possible right now is said by [`super::allowed::why_not`].

/// Where a command works. A screen or dialog has a list of these, most specific first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Context {
    /// On every screen, dialogs excepted.
    Screen,
    /// Where something can be moved through.
    Motion,
    /// The first screen.
    Home,
    /// A plan that is being read, without an incident.
    Plan,
    /// An incident.
    Incident,
    /// Its timeline.
    Timeline,
    /// The choice of the moment to restore to.
    Moment,
    /// What the plan says beside the steps.
    Reference,
    /// A search in the output is active.
    Search,
    /// A list that is narrowed by typing (`?`, `:`).
    Palette,
    /// A dialog with fields: characters are typed.
    Form,
    /// A dialog that is answered with y or n.
    Confirm,
    /// A dialog with named choices and no fields.
    Choice,
}

impl Context {
    /// All contexts.
    pub const ALL: &[Self] = &[
        Self::Screen,
        Self::Motion,
        Self::Home,
        Self::Plan,
        Self::Incident,
        Self::Timeline,
        Self::Moment,
        Self::Reference,
        Self::Search,
        Self::Palette,
        Self::Form,
        Self::Confirm,
        Self::Choice,
    ];
    /// Name in the key file.
    pub fn name(self) -> &'static str {
        match self {
            Self::Screen => "screen",
            Self::Motion => "motion",
            Self::Home => "home",
            Self::Plan => "plan",
            Self::Incident => "incident",
            Self::Timeline => "timeline",
            Self::Moment => "moment",
            Self::Reference => "reference",
            Self::Search => "search",
            Self::Palette => "palette",
            Self::Form => "form",
            Self::Confirm => "confirm",
            Self::Choice => "choice",
        }
    }
    /// Whether plain characters are typed into a field here, so that only other keys can be bound.
    pub fn types(self) -> bool {
        matches!(self, Self::Palette | Self::Form)
    }
}

/// What a command can do beyond the screen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Danger {
    /// Only the screen changes.
    Looks,
    /// Writes an event into the journal.
    Records,
    /// Asks for something that acts on the world; always behind its own dialog when it can change anything.
    Acts,
}

impl Danger {
    /// The word shown in the palette; empty for commands that only look.
    pub fn word(self) -> &'static str {
        match self {
            Self::Looks => "",
            Self::Records => "records",
            Self::Acts => "acts",
        }
    }
}

/// A command.
#[derive(Debug)]
pub struct Command {
    /// Which.
    pub id: Cmd,
    /// Name in kebab-case: palette, key file.
    pub name: &'static str,
    /// Two words at most, for the hint line.
    pub short: &'static str,
    /// One line, without a final period.
    pub doc: &'static str,
    /// Where it works.
    pub contexts: &'static [Context],
    /// What it can do.
    pub danger: Danger,
    /// Default keys, each a sequence written as in [`super::key::parse_keys`].
    pub keys: &'static [&'static str],
    /// Whether it is in the README's table.
    pub essential: bool,
}

macro_rules! commands {
    ($($id:ident $name:literal $short:literal $doc:literal [$($context:ident)*] $danger:ident [$($key:literal)*] $($essential:ident)?;)*) => {
        /// A command's identity.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum Cmd {
            $(#[doc = $doc] $id,)*
        }
        /// All commands, in the order in which help lists them.
        pub const COMMANDS: &[Command] = &[
            $(Command {
                id: Cmd::$id,
                name: $name,
                short: $short,
                doc: $doc,
                contexts: &[$(Context::$context),*],
                danger: Danger::$danger,
                keys: &[$($key),*],
                essential: commands!(@essential $($essential)?),
            },)*
        ];
    };
    (@essential essential) => { true };
    (@essential) => { false };
}

commands! {
    Open "open" "open" "Open what is selected; never runs anything by itself" [Home Plan Incident Timeline Moment Reference] Looks ["enter"] essential;
    Run "run" "run" "Run the step's command; asks before a change" [Incident] Acts ["r"] essential;
    Edit "edit-command" "edit" "Run the step's command once with other options; asks like every run" [Incident] Acts ["e"] essential;
    Done "done" "done" "Mark the step as done" [Incident] Records ["d"] essential;
    Skip "skip" "skip" "Leave the step out, with a reason" [Incident] Records ["s"] essential;
    Note "note" "note" "Write a note, now or back-dated" [Incident Timeline] Records ["n"] essential;
    Timeline "timeline" "timeline" "Show everything that happened, with times" [Incident] Looks ["t"] essential;
    Moment "moment" "moment" "Choose the moment to restore to, and see what it loses" [Incident] Records ["m"] essential;
    Cancel "cancel-run" "stop" "Ask the running action to stop" [Incident] Acts ["x"] essential;
    Drill "drill" "drill" "Rehearse the scenario on a private PostgreSQL" [Home Plan] Acts ["d"];
    Declare "declare" "declare" "Declare a real incident, or set its severity and when impact began" [Home Plan Incident] Records ["D"] essential;
    Current "current-step" "go there" "Go to the step the work is at" [Incident] Looks ["."];
    Start "start" "start" "Start work on the step" [Incident] Records ["b"];
    Tick "tick" "tick" "Tick or untick the selected item of the step" [Incident] Records ["space"] essential;
    Reopen "reopen" "reopen" "Open a finished or skipped step again, with a reason" [Incident] Records ["u"];
    Variable "variable" "variable" "Give a variable of the plan a value" [Incident] Records ["v"];
    Waive "waive" "waive" "Waive a safety gate, with a reason that is recorded" [Incident] Records ["W"];
    NextBlock "next-command" "next cmd" "Select the next command of the step" [Incident Plan] Looks ["]"] essential;
    PrevBlock "previous-command" "prev cmd" "Select the previous command of the step" [Incident Plan] Looks ["["];
    Resolve "resolve" "resolve" "Say what became of a run whose outcome is unknown, or look after its processes" [Incident] Records ["o"];
    WritesOn "writes-on" "writes on" "Turn writes on again that a containment turned off; asks first" [Incident] Acts ["U"] essential;
    Restored "restored" "restored" "Say that service is back: the RTO clock stops" [Incident] Records ["R"];
    Close "close" "close" "Close the incident, with one sentence" [Incident] Records ["C"] essential;
    Export "export" "export" "Write the timeline as Markdown, HTML, JSON and CSV" [Incident Timeline] Looks ["E"] essential;
    AdoptPlan "adopt-plan" "adopt plan" "Work with the changed plan from here on" [Incident] Records ["A"];
    Tell "tell" "tell" "Tell an audience: fill in a message, copy it or hand it to the configured command" [Incident] Acts ["w"] essential;
    Deadlines "deadlines" "deadlines" "Show every deadline: respond, escalate, answers, updates" [Incident] Looks ["p"];
    Ack "acknowledge" "ack" "Say that somebody is on it, that a level answered, or that nobody has to be called" [Incident] Records ["i"];
    Snooze "snooze" "snooze" "Put a deadline off, with a reason" [Incident] Records ["z"];
    Escalate "escalate" "escalate" "Call (page) the next level; its time to answer runs from then" [Incident] Records ["P"];
    Assign "assign" "roles" "Give a role to somebody, or hand it over" [Incident] Records ["a"];
    Afterwards "afterwards" "afterwards" "Tick what is to be done once it is over" [Incident] Records ["X"];
    Rotated "secret-rotated" "rotated" "Write down that a secret was changed" [Home Incident] Records ["I"];
    Codename "codename" "code name" "Speak of the incident under a name that says nothing, or by its title again" [Incident] Records ["V"] essential;
    LocalOnly "local-only" "local only" "Let nothing leave this machine by our doing, or let it again" [Incident] Records ["Z"];
    Contacts "contacts" "contacts" "Show who to reach, and everything else the plan says beside its steps" [Incident Plan Timeline Reference] Looks ["c"];
    Matrix "severity-matrix" "matrix" "Show what each severity asks for" [Incident Plan Timeline Reference] Looks ["S"];
    Objectives "objectives" "objectives" "Show every objective, with what it applies to" [Incident Plan Timeline Reference] Looks ["O"];
    Templates "templates" "templates" "Show the plan's messages to send; enter fills in their blanks" [Incident Plan Timeline Reference] Looks ["T"];
    Checklists "checklists" "checklists" "Show the plan's checklists" [Incident Plan Timeline Reference] Looks ["K"];
    Link "follow-link" "link" "Follow a link of the step to another part of the plan or another plan" [Incident Plan] Looks ["L"];
    Copy "copy" "copy" "Copy the selected command, line or step" [Plan Incident Timeline Reference] Looks ["y"];
    Follow "follow" "follow" "Follow the output as it comes" [Incident] Looks ["f"];
    Filter "filter" "filter" "Narrow the list, or search the output; ! inverts" [Home Incident Timeline] Looks ["/"];
    NextMatch "next-match" "next" "Go to the next match in the output" [Search] Looks ["n"];
    PrevMatch "previous-match" "previous" "Go to the match before" [Search] Looks ["N"];
    Up "up" "up" "Move up; in a form to the choice or the field before" [Motion Palette Form Confirm Choice] Looks ["up" "k"];
    Down "down" "down" "Move down; in a form to the next choice or field" [Motion Palette Form Confirm Choice] Looks ["down" "j"];
    Left "left" "left" "Move the output sideways, or to the choice before" [Motion Choice Confirm] Looks ["left" "h"];
    Right "right" "right" "Move the output sideways, or to the next choice" [Motion Choice Confirm] Looks ["right" "l"];
    PageUp "page-up" "page up" "Move up one page; beside the steps: of the text that is read" [Motion Palette Form Confirm Choice] Looks ["pageup" "ctrl-b"];
    PageDown "page-down" "page down" "Move down one page; beside the steps: of the text that is read" [Motion Palette Form Confirm Choice] Looks ["pagedown" "ctrl-f"];
    HalfUp "half-page-up" "half up" "Move up half a page" [Motion] Looks ["ctrl-u"];
    HalfDown "half-page-down" "half down" "Move down half a page" [Motion] Looks ["ctrl-d"];
    First "first" "first" "Go to the first line" [Motion] Looks ["g g" "home"];
    Last "last" "last" "Go to the last line; follows the output" [Motion] Looks ["G" "end"];
    NextPane "next-pane" "pane" "Go to the next pane" [Incident Plan] Looks ["tab"] essential;
    PrevPane "previous-pane" "pane" "Go to the pane before" [Incident Plan] Looks ["shift-tab"];
    Pane1 "pane-1" "steps" "Go to the steps" [Incident Plan] Looks ["1"];
    Pane2 "pane-2" "text" "Go to the step's text" [Incident Plan] Looks ["2"];
    Pane3 "pane-3" "output" "Go to the output, which is then larger" [Incident] Looks ["3"];
    Help "help" "help" "Search what can be done here; enter does it" [Screen] Looks ["?"] essential;
    Palette "palette" "commands" "List every command of the console" [Screen] Looks [":" "ctrl-p"];
    Back "back" "back" "Go one step back; never quits" [Screen] Looks ["esc"] essential;
    Quit "quit" "quit" "Leave the console; running actions go on" [Screen] Looks ["q"] essential;
    Messages "messages" "messages" "Show all messages of this session" [Screen] Looks ["M"];
    Mouse "toggle-mouse" "mouse" "Switch the mouse on or off (off: the terminal selects text)" [Screen] Looks ["f2"];
    Redraw "redraw" "redraw" "Draw the whole screen again" [Screen Palette Form Confirm Choice] Looks ["ctrl-l"];
    Suspend "suspend" "suspend" "Back to the shell; fg returns" [Screen Palette Form Confirm Choice] Looks ["ctrl-z"];
    Interrupt "interrupt" "interrupt" "Leave a dialog; twice within two seconds: leave the console" [Screen Palette Form Confirm Choice] Looks ["ctrl-c"];
    Accept "accept" "ok" "Accept what was entered or chosen" [Palette Form Choice] Looks ["enter"];
    Dismiss "dismiss" "back" "Leave the dialog without doing anything" [Palette Form Confirm Choice] Looks ["esc"];
    NextField "next-field" "next field" "Go to the next field" [Form Choice Confirm] Looks ["tab"];
    PrevField "previous-field" "prev field" "Go to the field before" [Form Choice Confirm] Looks ["shift-tab"];
    FillIn "fill-in" "fill in" "Fill in the blanks of the message that is shown" [Choice Confirm] Records ["e"];
    Yes "yes" "yes" "Do what the dialog asks" [Confirm] Acts ["y"];
    No "no" "no" "Do not do what the dialog asks" [Confirm] Looks ["n"];
    Press "press" "press" "Press the button that has the focus (Cancel to begin with)" [Confirm] Looks ["enter"];
}

impl Cmd {
    /// The entry of the table.
    pub fn info(self) -> &'static Command {
        // The macro lists the enum and the table from the same lines, so the position is the discriminant.
        &COMMANDS[self as usize]
    }
    /// The command of that name.
    pub fn named(name: &str) -> Option<Self> {
        COMMANDS.iter().find(|c| c.name == name).map(|c| c.id)
    }
}

/// The key table of the README: the keys of a drill from its first step to its end, in the table's order, two commands a row, as
/// Markdown.
pub fn readme_table() -> String {
    let mut out = String::from("| Key | Does | Key | Does |\n|---|---|---|---|\n");
    let all: Vec<&Command> = COMMANDS.iter().filter(|c| c.essential).collect();
    let half = all.len().div_ceil(2);
    let cell = |c: Option<&&Command>| {
        let keys = |c: &Command| c.keys.iter().map(|k| format!("`{k}`")).collect::<Vec<_>>().join(" ");
        c.map_or(" | |".into(), |c| format!(" {} | {} |", keys(c), c.doc))
    };
    for row in 0..half {
        out.push_str(&format!("|{}{}\n", cell(all.get(row)), cell(all.get(half + row))));
    }
    out
}

/// A key file with every command's default keys, as `breakglass keys` prints it and as a user may change it.
pub fn key_file() -> String {
    let mut out = String::from(
        "# Keys of the breakglass console. Change, add or remove keys; an empty list unbinds.\n\n[keys]\n",
    );
    for c in COMMANDS {
        let keys: Vec<String> = c.keys.iter().map(|k| format!("{k:?}")).collect();
        let contexts: Vec<&str> = c.contexts.iter().map(|c| c.name()).collect();
        out.push_str(&format!("# {} ({})\n{} = [{}]\n", c.doc, contexts.join(", "), c.name, keys.join(", ")));
    }
    out
}
