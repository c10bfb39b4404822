//! A work queue over the threads of an [`Executor`].

use std::sync::{Mutex, PoisonError};

use crate::Executor;

/// Runs `work` on every item, each thread taking the next one as soon as it is free.
///
/// Items are usually disjoint `chunks_mut` of an output, so the compiler, not a comment, guarantees that no two
/// threads write the same place. `scratch` makes what a thread keeps between its items. An item should take
/// microseconds: handing one out costs a lock, some 20 ns.
pub(crate) fn for_each<I, S>(
    executor: &Executor,
    items: I,
    scratch: impl Fn() -> S + Sync,
    work: impl Fn(&mut S, I::Item) + Sync,
) where
    I: Iterator + Send,
{
    let items = Mutex::new(items);
    executor.run(|_| {
        let mut state = None;
        loop {
            // A poisoned lock means that another thread panicked; `run` reports that, the items are still sound.
            let Some(item) = items.lock().unwrap_or_else(PoisonError::into_inner).next() else { break };
            work(state.get_or_insert_with(&scratch), item);
        }
    });
}
