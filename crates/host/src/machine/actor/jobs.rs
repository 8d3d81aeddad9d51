//! The jobs of an actor: at most one of each kind, dropped with it or when the next one begins.

use tokio_util::task::AbortOnDropHandle;

/// A job that ends with its owner.
pub(crate) type Job = AbortOnDropHandle<()>;

#[derive(Debug, Default)]
pub(super) struct Jobs {
    /// Preparing an image.
    pub(super) prepare: Option<Job>,
    /// Launching a start.
    pub(super) launch: Option<Job>,
    /// Waiting for the end of this run.
    pub(super) watch: Option<(u64, Job)>,
    /// Freezing a run, or letting it go on.
    pub(super) freeze: Option<Job>,
    /// Carrying out a stop or a kill.
    pub(super) stop: Option<Job>,
    /// Sending a signal.
    pub(super) signal: Option<Job>,
    /// Waiting for a time.
    pub(super) timer: Option<Job>,
    /// Removing a run that is over; the next launch waits for it.
    pub(super) remove: Option<Job>,
    /// Removing everything.
    pub(super) wipe: Option<Job>,
    /// Probing.
    pub(super) checks: Option<Job>,
    /// Waiting to write again.
    pub(super) save: Option<Job>,
}
