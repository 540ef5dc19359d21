//! A server for tests that can be taken away and comes back at the same address.

use std::net::SocketAddr;
use std::sync::Arc;

use axum::Router;
use tokio::net::TcpListener;
use tokio::sync::Mutex;
use tokio::task::JoinHandle;

/// An HTTP server on loopback.
#[derive(Clone)]
pub(crate) struct Host {
    address: SocketAddr,
    router: Router,
    running: Arc<Mutex<Option<JoinHandle<()>>>>,
}

impl Host {
    pub(crate) async fn start(router: Router) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let running = Arc::new(Mutex::new(Some(serve(listener, router.clone()))));
        Self { address, router, running }
    }

    pub(crate) fn base(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Nobody listens there any more, or again.
    pub(crate) async fn reach(&self, reachable: bool) {
        let mut running = self.running.lock().await;
        if let Some(task) = running.take() {
            task.abort();
            // the listener is closed when the task is gone
            let _ = task.await;
        }
        if reachable {
            let listener = TcpListener::bind(self.address).await.unwrap();
            *running = Some(serve(listener, self.router.clone()));
        }
    }
}

fn serve(listener: TcpListener, router: Router) -> JoinHandle<()> {
    tokio::spawn(async move { axum::serve(listener, router).await.unwrap() })
}
