// SPDX-License-Identifier: GPL-2.0

//! Rate limits, for log messages that users can cause.
//!
//! C header: [`include/linux/ratelimit.h`](srctree/include/linux/ratelimit.h)

use crate::{
    bindings,
    prelude::*,
    time::Jiffies,
    types::Opaque, //
};

/// A limit for the number of events in a period of time.
///
/// # Examples
///
/// ```
/// use kernel::{
///     ratelimit::RateLimit,
///     time::msecs_to_jiffies, //
/// };
///
/// let limit = KBox::pin_init(RateLimit::new(msecs_to_jiffies(3_600_000), 2), GFP_KERNEL)?;
///
/// assert!(limit.allows(c"example"));
/// assert!(limit.allows(c"example"));
/// assert!(!limit.allows(c"example"));
/// # Ok::<(), Error>(())
/// ```
#[pin_data]
pub struct RateLimit {
    #[pin]
    state: Opaque<bindings::ratelimit_state>,
}

// SAFETY: A `struct ratelimit_state` belongs to no thread, and needs no cleanup.
unsafe impl Send for RateLimit {}

// SAFETY: `___ratelimit()`, the only function that takes a shared reference, locks it.
unsafe impl Sync for RateLimit {}

impl RateLimit {
    /// Makes a limit of `burst` events in each `interval`.
    pub fn new(interval: Jiffies, burst: c_int) -> impl PinInit<Self> {
        let interval = c_int::try_from(interval).unwrap_or(c_int::MAX);

        pin_init!(Self {
            state <- Opaque::ffi_init(|slot| {
                // SAFETY: `slot` is valid for writes, and pinned.
                unsafe { bindings::ratelimit_state_init(slot, interval, burst) }
            }),
        })
    }

    /// Returns whether one more event is within the limit, and counts it.
    ///
    /// When a new interval begins, logs the number of events that the last one has suppressed, as
    /// those of `function`. May be called in any context.
    pub fn allows(&self, function: &CStr) -> bool {
        // SAFETY: `self.state` has been initialized, and `function` is a valid string, which is not
        // kept.
        unsafe { bindings::___ratelimit(self.state.get(), function.as_char_ptr()) != 0 }
    }
}
