//! Between the screen and the world: effects go out, messages come in, output only says that it moved.

use std::sync::Arc;

use tokio::sync::{Notify, mpsc};

use super::{Effect, Msg};

/// What the loop holds of the driver. Dropping it ends the driver's work; running actions go on.
pub struct Port {
    /// Effects. Bounded: when it is full the driver is stuck, and the reader is told instead of being kept waiting.
    pub effects: mpsc::Sender<Effect>,
    /// Messages. Bounded: when it is full the driver waits; the loop drains it before each frame.
    pub messages: mpsc::Receiver<Msg>,
    /// The output of the shown run moved on. Carries nothing, so that a flood is one wake-up.
    pub moved: Arc<Notify>,
}

/// The driver's end of a [`Port`].
pub struct Side {
    /// Effects.
    pub effects: mpsc::Receiver<Effect>,
    /// Messages.
    pub messages: mpsc::Sender<Msg>,
    /// See [`Port::moved`].
    pub moved: Arc<Notify>,
}

/// A port and its other side.
pub fn port() -> (Port, Side) {
    let (effects, effects_in) = mpsc::channel(64);
    let (messages, messages_in) = mpsc::channel(64);
    let moved = Arc::new(Notify::new());
    (Port { effects, messages: messages_in, moved: moved.clone() }, Side { effects: effects_in, messages, moved })
}
