//! The stream of messages between server and host (D16): serialised also within one process, so
//! that nothing can be meant that could not be sent to another one.

use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::sync::mpsc;
use tokio::task::JoinSet;

/// Messages that may wait on each side.
const QUEUE: usize = 1024;

/// Returns the two ends of a one-way stream, which a new task carries.
pub(crate) fn carried<T>(tasks: &mut JoinSet<&'static str>) -> (mpsc::Sender<T>, mpsc::Receiver<T>)
where
    T: Serialize + DeserializeOwned + Send + 'static,
{
    let (input, output, carry) = pipe();
    tasks.spawn(async { (carry.await, "link").1 });
    (input, output)
}

/// Returns the two ends of a one-way stream, and the future that carries it.
fn pipe<T>() -> (
    mpsc::Sender<T>,
    mpsc::Receiver<T>,
    impl Future<Output = ()> + Send,
)
where
    T: Serialize + DeserializeOwned + Send + 'static,
{
    let (input, mut from) = mpsc::channel::<T>(QUEUE);
    let (to, output) = mpsc::channel::<T>(QUEUE);
    let carry = async move {
        while let Some(message) = from.recv().await {
            match serde_json::to_vec(&message).and_then(|bytes| serde_json::from_slice::<T>(&bytes))
            {
                Ok(same) => {
                    if to.send(same).await.is_err() {
                        return;
                    }
                }
                Err(error) => {
                    tracing::error!(%error, "a message between server and host cannot be written")
                }
            }
        }
    };
    (input, output, carry)
}
