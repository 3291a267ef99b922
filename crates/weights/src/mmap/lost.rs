//! Pages that a mapped file has lost.
//!
//! Reading a page that the file no longer has, because it was cut short or its disk is gone, raises SIGBUS, and its
//! default is a core dump that names nothing. [`exit_on_lost_pages`] has the process say instead which file it was, and
//! end with exit code 1. The handler only does what is allowed in one: it reads atomics, writes a text that was made
//! when the file was mapped, and exits.
//!
//! Source: POSIX.1-2017 `mmap` ("References within the address range …"), `signal-safety(7)`.

use std::path::Path;
use std::sync::atomic::{AtomicPtr, AtomicUsize, Ordering::*};
use std::sync::{Mutex, PoisonError};

/// A mapping in the list that the handler reads. Nodes live for ever and are used again.
struct Node {
    /// Address of the first byte; 0 where the node is free.
    start: AtomicUsize,
    end: AtomicUsize,
    /// The text to write, owned by the [`Watched`] of the mapping.
    text: AtomicPtr<u8>,
    text_len: AtomicUsize,
    next: Option<&'static Node>,
}

static FIRST: AtomicPtr<Node> = AtomicPtr::new(std::ptr::null_mut());
/// Held to change the list, and to read it but in the handler.
static CHANGING: Mutex<()> = Mutex::new(());

/// A mapping's place in the list, from [`Watched::new`] until it is dropped.
#[derive(Debug)]
pub struct Watched {
    node: NodeRef,
    /// What the handler writes.
    _text: Box<str>,
}

struct NodeRef(&'static Node);

impl std::fmt::Debug for NodeRef {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:#x}..{:#x}", self.0.start.load(Relaxed), self.0.end.load(Relaxed))
    }
}

impl Watched {
    /// Puts the mapping `map` of the file at `path` on the list.
    pub fn new(path: &Path, map: &[u8]) -> Self {
        let text = format!(
            "error: `{}` was cut short or its disk can't be read while it was in use; load the model again, and \
             replace files by renaming, not by writing into them\n",
            path.display()
        )
        .into_boxed_str();
        let _changing = CHANGING.lock().unwrap_or_else(PoisonError::into_inner);
        let node = nodes().find(|node| node.start.load(Relaxed) == 0).unwrap_or_else(added);
        let range = map.as_ptr_range();
        node.text.store(text.as_ptr().cast_mut(), Relaxed);
        node.text_len.store(text.len(), Relaxed);
        node.end.store(range.end as usize, Relaxed);
        // Last, so that a handler that sees the start sees the rest.
        node.start.store(range.start as usize, Release);
        Watched { node: NodeRef(node), _text: text }
    }
}

impl Drop for Watched {
    fn drop(&mut self) {
        let _changing = CHANGING.lock().unwrap_or_else(PoisonError::into_inner);
        self.node.0.start.store(0, Release);
    }
}

/// Whether all of `bytes` lies in a mapping on the list.
pub fn holds(bytes: &[u8]) -> bool {
    let range = bytes.as_ptr_range();
    let (start, end) = (range.start as usize, range.end as usize);
    // A node that was used again in between would show one mapping's start and another's end.
    let _changing = CHANGING.lock().unwrap_or_else(PoisonError::into_inner);
    nodes().any(|node| {
        let first = node.start.load(Acquire);
        first != 0 && first <= start && end <= node.end.load(Relaxed)
    })
}

fn nodes() -> impl Iterator<Item = &'static Node> {
    // SAFETY: null, or a node that `added` leaked.
    let first = unsafe { FIRST.load(Acquire).as_ref() };
    std::iter::successors(first, |node| node.next)
}

/// A new node at the head of the list; the caller holds [`CHANGING`].
fn added() -> &'static Node {
    let node: &'static Node = Box::leak(Box::new(Node {
        start: AtomicUsize::new(0),
        end: AtomicUsize::new(0),
        text: AtomicPtr::default(),
        text_len: AtomicUsize::new(0),
        next: nodes().next(),
    }));
    FIRST.store(std::ptr::from_ref(node).cast_mut(), Release);
    node
}

/// From now on the process ends with exit code 1 and a line on standard error that names the file where a page of a
/// mapped file is read that the file no longer has. For programs; a library leaves its process's signals alone.
///
/// Where the system has no such signal this does nothing.
pub fn exit_on_lost_pages() {
    #[cfg(unix)]
    handler::install();
}

#[cfg(unix)]
mod handler {
    use super::*;
    use std::sync::OnceLock;

    /// What SIGBUS did before.
    static BEFORE: OnceLock<libc::sigaction> = OnceLock::new();

    pub fn install() {
        BEFORE.get_or_init(|| {
            // SAFETY: all zeros is a valid `sigaction`; both pointers are to such values of this function, and
            // `on_lost_page` is what SA_SIGINFO asks for.
            unsafe {
                let mut action: libc::sigaction = std::mem::zeroed();
                action.sa_sigaction = on_lost_page as extern "C" fn(_, _, _) as usize;
                action.sa_flags = libc::SA_SIGINFO | libc::SA_ONSTACK;
                let mut before: libc::sigaction = std::mem::zeroed();
                libc::sigaction(libc::SIGBUS, &action, &mut before);
                before
            }
        });
    }

    extern "C" fn on_lost_page(signal: libc::c_int, info: *mut libc::siginfo_t, context: *mut libc::c_void) {
        // SAFETY: the system passes a valid `info`, and SIGBUS has an address.
        let address = unsafe { (*info).si_addr() } as usize;
        let hit = nodes().find(|node| {
            let start = node.start.load(Acquire);
            start != 0 && (start..node.end.load(Relaxed)).contains(&address)
        });
        if let Some(node) = hit {
            // SAFETY: the thread that faulted reads through a reference to the mapping, which owns the text. `write`
            // and `_exit` are safe in handlers.
            unsafe {
                libc::write(libc::STDERR_FILENO, node.text.load(Relaxed).cast(), node.text_len.load(Relaxed));
                libc::_exit(1);
            }
        }
        before(signal, info, context);
    }

    /// Another address: does what was done before, or lets the same access fault again under the default.
    fn before(signal: libc::c_int, info: *mut libc::siginfo_t, context: *mut libc::c_void) {
        let before = BEFORE.get();
        // SAFETY: the handler of before was installed by its owner for these arguments; the default action is always
        // valid.
        unsafe {
            match before.filter(|b| b.sa_flags & libc::SA_SIGINFO != 0 && b.sa_sigaction > libc::SIG_IGN) {
                Some(before) => {
                    type Handler = extern "C" fn(libc::c_int, *mut libc::siginfo_t, *mut libc::c_void);
                    let handler = std::mem::transmute::<usize, Handler>(before.sa_sigaction);
                    handler(signal, info, context);
                }
                None => {
                    let mut default: libc::sigaction = std::mem::zeroed();
                    default.sa_sigaction = libc::SIG_DFL;
                    libc::sigaction(libc::SIGBUS, &default, std::ptr::null_mut());
                }
            }
        }
    }
}
