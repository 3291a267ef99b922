//! Large pages for what is read again and again.
//!
//! A core that streams weights through pages of 4 KiB waits for an address every 64 lines: on a virtual Zen 4 it reads 15 to
//! 20 GB/s so, and 32 to 34 through pages of 2 MiB.

#![allow(unsafe_code, reason = "advice to the system, of addresses that a slice holds")]

/// Bytes of a large page, of most systems.
pub const LARGE: usize = 2 << 20;

/// Asks the system to keep `values` in large pages, be they memory of the process or mapped from a file. It may not: then
/// nothing changes but time. Of memory whole large pages are taken at the first touch, so this is for what is used whole.
/// Neighbours that share a page stay one mapping, so a large page may hold parts of both.
pub fn large_pages<T>(values: &[T]) {
    #[cfg(target_os = "linux")]
    {
        /// The smallest page of a Linux system; a larger one makes the advice fail.
        const PAGE: usize = 4096;
        let start = values.as_ptr() as usize / PAGE * PAGE;
        let end = (values.as_ptr() as usize + size_of_val(values)).next_multiple_of(PAGE);
        if !values.is_empty() {
            // SAFETY: every page holds some of `values`; how it is mapped changes nothing that can be read or written.
            unsafe { libc::madvise(start as *mut libc::c_void, end - start, libc::MADV_HUGEPAGE) };
        }
    }
    #[cfg(not(target_os = "linux"))]
    let _ = values;
}
