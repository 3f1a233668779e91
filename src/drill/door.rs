//! A door to a database: a unix socket that hands every connection on to another one, and can be pointed elsewhere, shut, or
//! made slow. It stands for the name service or load balancer before a database, and for the line between two regions.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::watch;

use crate::error::{Context, Result};

/// Port in the name of the socket.
pub const PORT: u16 = 5432;

/// The door.
pub struct Door {
    to: watch::Sender<Option<PathBuf>>,
    stalled: watch::Sender<bool>,
}

impl Door {
    /// Opens the socket in `dir`, which only the server's user and we can enter, and hands connections on to `to`.
    ///
    /// # Errors
    /// State when the socket cannot be made.
    pub fn open(dir: &Path, to: Option<PathBuf>) -> Result<Arc<Self>> {
        let socket = crate::postgres::instance::socket_path(dir, PORT);
        let what = || format!("cannot open {}", socket.display());
        let _ = fs::remove_file(&socket);
        let listener = UnixListener::bind(&socket).state(what)?;
        // The folder keeps others out; the server's user is another than ours when we are root.
        fs::set_permissions(&socket, Permissions::from_mode(0o666)).state(what)?;
        let door = Arc::new(Self { to: watch::channel(to).0, stalled: watch::channel(false).0 });
        tokio::spawn(door.clone().serve(listener));
        Ok(door)
    }
    /// Hands on to another socket from now on, or to none; every connection there is ends.
    pub fn point(&self, to: Option<PathBuf>) {
        self.to.send_replace(to);
    }
    /// Nothing passes any more, or everything again; no connection ends.
    pub fn stall(&self, on: bool) {
        self.stalled.send_replace(on);
    }

    async fn serve(self: Arc<Self>, listener: UnixListener) {
        loop {
            match listener.accept().await {
                Ok((outer, _)) => {
                    tokio::spawn(self.clone().hand_on(outer));
                }
                // Out of file numbers, say: the next one may work.
                Err(_) => tokio::time::sleep(std::time::Duration::from_millis(100)).await,
            }
        }
    }

    async fn hand_on(self: Arc<Self>, outer: UnixStream) {
        let mut moved = self.to.subscribe();
        let Some(to) = moved.borrow_and_update().clone() else { return };
        let Ok(inner) = UnixStream::connect(&to).await else { return };
        let (from_outer, to_outer) = outer.into_split();
        let (from_inner, to_inner) = inner.into_split();
        tokio::select! {
            () = pump(from_outer, to_inner, self.stalled.subscribe()) => {}
            () = pump(from_inner, to_outer, self.stalled.subscribe()) => {}
            _ = moved.changed() => {}
        }
    }
}

async fn pump(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, mut stalled: watch::Receiver<bool>) {
    let mut buffer = vec![0; 64 * 1024];
    while let Ok(n) = from.read(&mut buffer).await {
        if n == 0 || stalled.wait_for(|s| !s).await.is_err() || to.write_all(&buffer[..n]).await.is_err() {
            return;
        }
    }
}
