//! Panics stay where they happen, and are noted with their place.

use std::cell::{Cell, RefCell};
use std::panic::{AssertUnwindSafe, catch_unwind, set_hook, take_hook};
use std::pin::pin;
use std::sync::Once;
use std::task::Poll;

use super::notes::{Kind, Notes};

thread_local! {
    static IS_GUARDED: Cell<bool> = const { Cell::new(false) };
    static SAID: RefCell<String> = const { RefCell::new(String::new()) };
}

/// From now on what panics within a guard is noted rather than written to standard error, which it could fill.
pub fn install() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let before = take_hook();
        set_hook(Box::new(move |panic| {
            if IS_GUARDED.get() {
                SAID.with_borrow_mut(|said| *said = panic.to_string());
            } else {
                before(panic);
            }
        }));
    });
}

/// What `work` gives, None where it panics.
pub fn guarded<T>(notes: &Notes, work: impl FnOnce() -> T) -> Option<T> {
    let before = IS_GUARDED.replace(true);
    let done = catch_unwind(AssertUnwindSafe(work));
    IS_GUARDED.set(before);
    done.inspect_err(|_| notes.add(Kind::Panic, || SAID.take())).ok()
}

/// The same of a future, which ends where it panics.
pub async fn guard<T>(notes: &Notes, work: impl Future<Output = T>) -> Option<T> {
    let mut work = pin!(work);
    std::future::poll_fn(|context| match guarded(notes, || work.as_mut().poll(context)) {
        Some(Poll::Ready(done)) => Poll::Ready(Some(done)),
        Some(Poll::Pending) => Poll::Pending,
        None => Poll::Ready(None),
    })
    .await
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;

    fn fails(notes: &Notes) -> Option<u8> {
        let none = [0_u8; 0];
        guarded(notes, || none[std::hint::black_box(1)])
    }

    #[test]
    fn a_panic_is_caught_and_noted_with_its_place() {
        install();
        let notes = Notes::default();
        assert_eq!(guarded(&notes, || 7), Some(7));
        assert_eq!(guarded(&notes, || (fails(&notes), 7)), Some((None, 7)));
        assert_eq!(fails(&notes), None);
        let taken = notes.take(true, Instant::now());
        assert_eq!((taken.len(), taken[0].0, taken[0].1), (1, Kind::Panic as usize, 2));
        assert!(taken[0].2.contains("guard.rs") && taken[0].2.contains("index out of bounds"), "{}", taken[0].2);
    }

    #[test]
    fn a_future_that_panics_ends() {
        install();
        let notes = Notes::default();
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        assert_eq!(runtime.block_on(guard(&notes, async { 7 })), Some(7));
        let fails = async {
            tokio::task::yield_now().await;
            panic!("later")
        };
        assert_eq!(runtime.block_on(guard::<u8>(&notes, fails)), None);
        assert!(notes.take(true, Instant::now())[0].2.contains("later"));
    }
}
