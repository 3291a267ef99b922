//! Ctrl-C: the first one asks what is being done to stop, a second one before it has ends the program; a chat goes on.

use std::sync::atomic::{AtomicBool, Ordering};

/// The exit code of a program that Ctrl-C ended, as shells expect it.
pub const EXIT_CODE: u8 = 130;

static ASKED: AtomicBool = AtomicBool::new(false);

/// Takes over Ctrl-C in a chat, which none of them ends; where the system refuses, it ends the program as usual.
pub fn listen_in_chat() {
    let _ = ctrlc::set_handler(|| ASKED.store(true, Ordering::Relaxed));
}

/// Takes over Ctrl-C; where the system refuses, Ctrl-C ends the program as usual.
pub fn listen() {
    let _ = ctrlc::set_handler(|| {
        if ASKED.swap(true, Ordering::Relaxed) {
            std::process::exit(EXIT_CODE.into());
        }
    });
}

/// Whether Ctrl-C was pressed since [`clear`].
pub fn asked() -> bool {
    ASKED.load(Ordering::Relaxed)
}

/// Forgets an earlier Ctrl-C.
pub fn clear() {
    ASKED.store(false, Ordering::Relaxed);
}
