//! Waiting that something else ends.

use std::future::poll_fn;
use std::pin::pin;
use std::task::Poll;

/// What `work` gives, None where `end` comes first.
pub async fn until<T>(end: impl Future, work: impl Future<Output = T>) -> Option<T> {
    let (mut end, mut work) = (pin!(end), pin!(work));
    poll_fn(|context| {
        if let Poll::Ready(done) = work.as_mut().poll(context) {
            return Poll::Ready(Some(done));
        }
        end.as_mut().poll(context).map(|_| None)
    })
    .await
}
