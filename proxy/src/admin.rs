//! The admin pages over HTTP: metrics for Prometheus, health for whoever restarts pgstar,
//! readiness for whoever sends it clients.
//!
//! Reads state that other parts set; changes nothing, and shows no text that came from a client.

use std::collections::BTreeMap;
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use tokio::net::TcpListener;

use crate::failure::BindError;
use crate::telemetry;

/// How long open admin connections may finish when pgstar stops.
const CLOSE_TIME_MAX: Duration = Duration::from_secs(1);

/// Something without which pgstar should not be sent clients.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Condition {
    /// The server answers.
    Upstream,
    /// Every declared rollup has been looked at, and those that can answer do.
    Rollups,
}

impl Condition {
    fn as_str(self) -> &'static str {
        match self {
            Condition::Upstream => "upstream",
            Condition::Rollups => "rollups",
        }
    }
}

/// Which conditions are not met yet, or no longer; clones share their state.
#[derive(Debug, Clone)]
pub struct Readiness {
    missing: Arc<Mutex<BTreeMap<Condition, String>>>,
    /// Why changes are not followed, if they are not: pgstar serves all the same, more slowly.
    unfollowed: Arc<Mutex<Option<String>>>,
}

impl Readiness {
    /// Nothing is met at the start.
    pub fn new() -> Self {
        let missing = [
            (Condition::Upstream, "not connected yet".to_owned()),
            (Condition::Rollups, "not loaded yet".to_owned()),
        ];
        Readiness {
            missing: Arc::new(Mutex::new(BTreeMap::from(missing))),
            unfollowed: Arc::default(),
        }
    }

    /// Whether the changes of tables are followed, or why not; shown, and no reason to send nobody here.
    pub fn followed(&self, followed: Result<(), String>) {
        let mut unfollowed = self
            .unfollowed
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        *unfollowed = followed.err();
    }

    /// The condition holds now.
    pub fn met(&self, condition: Condition) {
        self.missing().remove(&condition);
    }

    /// The condition does not hold; `detail` is shown to whoever asks, so it holds no secret.
    pub fn unmet(&self, condition: Condition, detail: impl Into<String>) {
        self.missing().insert(condition, detail.into());
    }

    /// Whether every condition holds.
    pub fn is_ready(&self) -> bool {
        self.missing().is_empty()
    }

    fn missing(&self) -> MutexGuard<'_, BTreeMap<Condition, String>> {
        // The map is whole after every single operation, so a panic elsewhere harmed nothing.
        self.missing.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn to_json(&self) -> serde_json::Value {
        let missing = self.missing();
        let details: BTreeMap<_, _> = missing
            .iter()
            .map(|(condition, detail)| (condition.as_str(), detail))
            .collect();
        let unfollowed = self.unfollowed.lock();
        let unfollowed = unfollowed.unwrap_or_else(PoisonError::into_inner);
        match &*unfollowed {
            None => serde_json::json!({ "ready": missing.is_empty(), "missing": details }),
            Some(why) => {
                serde_json::json!({ "ready": missing.is_empty(), "missing": details, "stream": why })
            }
        }
    }
}

impl Default for Readiness {
    fn default() -> Self {
        Readiness::new()
    }
}

/// The admin pages' socket, bound before anything else starts so that a port in use stops the start.
#[derive(Debug)]
pub struct Admin {
    listener: TcpListener,
    address: SocketAddr,
}

impl Admin {
    /// Listens on `[admin] address`.
    ///
    /// # Errors
    /// The address is in use, or not this machine's.
    pub async fn bind(address: SocketAddr) -> Result<Admin, BindError> {
        let failed = |error| BindError::new("[admin] address", address, error);
        let listener = TcpListener::bind(address).await.map_err(failed)?;
        let address = listener.local_addr().map_err(failed)?;
        Ok(Admin { listener, address })
    }

    /// Where it listens, with the port that the system chose for port 0.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Answers requests until `stop` completes, and a moment longer for those under way.
    ///
    /// # Errors
    /// The socket failed.
    pub async fn serve(
        self,
        readiness: Readiness,
        stop: impl Future<Output = ()> + Send + 'static,
    ) -> io::Result<()> {
        let (stopping, stopped) = tokio::sync::oneshot::channel();
        let stop = async move {
            stop.await;
            // The receiver is gone only when serving has ended already.
            let _ = stopping.send(());
        };
        let serving = axum::serve(self.listener, pages(readiness)).with_graceful_shutdown(stop);
        tokio::select! {
            ended = serving.into_future() => ended,
            () = too_late(stopped) => Ok(()),
        }
    }
}

async fn too_late(stopped: tokio::sync::oneshot::Receiver<()>) {
    match stopped.await {
        Ok(()) => tokio::time::sleep(CLOSE_TIME_MAX).await,
        // The sender lives as long as serving does; without it there is nothing to cut short.
        Err(_) => std::future::pending().await,
    }
}

fn pages(readiness: Readiness) -> Router {
    Router::new()
        .route("/metrics", get(metrics))
        .route("/healthz", get(healthz))
        .route("/readyz", get(readyz))
        .with_state(readiness)
}

async fn metrics() -> Response {
    let text_format = "text/plain; version=0.0.4; charset=utf-8";
    ([(header::CONTENT_TYPE, text_format)], telemetry::render()).into_response()
}

async fn healthz() -> &'static str {
    "ok\n"
}

async fn readyz(State(readiness): State<Readiness>) -> Response {
    let status = match readiness.is_ready() {
        true => StatusCode::OK,
        false => StatusCode::SERVICE_UNAVAILABLE,
    };
    let body = format!("{}\n", readiness.to_json());
    (status, [(header::CONTENT_TYPE, "application/json")], body).into_response()
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpStream;
    use tokio::sync::oneshot;

    use super::*;

    const ANY_PORT: SocketAddr =
        SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 0);

    /// Status line, head and body of an answer.
    async fn request(address: SocketAddr, line: &str) -> (String, String, String) {
        let mut stream = TcpStream::connect(address).await.unwrap();
        let request = format!("{line} HTTP/1.1\r\nHost: pgstar\r\nConnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        let (status, fields) = head.split_once("\r\n").unwrap();
        (
            status.to_owned(),
            fields.to_ascii_lowercase(),
            body.to_owned(),
        )
    }

    #[tokio::test]
    async fn pages_tell_metrics_health_and_readiness() {
        let admin = Admin::bind(ANY_PORT).await.unwrap();
        let address = admin.address();
        let readiness = Readiness::new();
        let (stop, stopped) = oneshot::channel::<()>();
        let serving = tokio::spawn(admin.serve(readiness.clone(), async {
            let _ = stopped.await;
        }));

        let (status, _, body) = request(address, "GET /healthz").await;
        assert_eq!(
            (status.as_str(), body.as_str()),
            ("HTTP/1.1 200 OK", "ok\n")
        );

        let (status, fields, body) = request(address, "GET /metrics").await;
        assert_eq!(status, "HTTP/1.1 200 OK");
        assert!(
            fields.contains("content-type: text/plain; version=0.0.4"),
            "{fields}"
        );
        assert!(body.contains("# TYPE pgstar_sessions gauge"), "{body}");

        let (status, fields, body) = request(address, "GET /readyz").await;
        assert_eq!(status, "HTTP/1.1 503 Service Unavailable");
        assert!(
            fields.contains("content-type: application/json"),
            "{fields}"
        );
        let expected = r#"{"missing":{"rollups":"not loaded yet","upstream":"not connected yet"},"ready":false}"#;
        assert_eq!(body.trim_end(), expected);

        readiness.met(Condition::Upstream);
        readiness.met(Condition::Rollups);
        let (status, _, body) = request(address, "GET /readyz").await;
        assert_eq!(status, "HTTP/1.1 200 OK");
        assert_eq!(body.trim_end(), r#"{"missing":{},"ready":true}"#);

        readiness.unmet(Condition::Upstream, "the server is shutting down");
        assert_eq!(
            request(address, "GET /readyz").await.0,
            "HTTP/1.1 503 Service Unavailable"
        );
        assert_eq!(
            request(address, "GET /other").await.0,
            "HTTP/1.1 404 Not Found"
        );
        assert_eq!(
            request(address, "POST /healthz").await.0,
            "HTTP/1.1 405 Method Not Allowed"
        );

        stop.send(()).unwrap();
        serving.await.unwrap().unwrap();
        assert!(TcpStream::connect(address).await.is_err());
    }

    #[tokio::test]
    async fn a_silent_client_does_not_hold_up_the_stop() {
        let admin = Admin::bind(ANY_PORT).await.unwrap();
        let address = admin.address();
        let mut silent = TcpStream::connect(address).await.unwrap();
        let (stop, stopped) = oneshot::channel::<()>();
        let serving = tokio::spawn(admin.serve(Readiness::new(), async {
            let _ = stopped.await;
        }));
        silent.write_all(b"GET /heal").await.unwrap();
        // Connections are accepted in turn: once a later one is answered, the silent one is being read.
        let (status, _, _) = request(address, "GET /healthz").await;
        assert_eq!(status, "HTTP/1.1 200 OK");
        stop.send(()).unwrap();
        tokio::time::timeout(CLOSE_TIME_MAX * 10, serving)
            .await
            .unwrap()
            .unwrap()
            .unwrap();
    }

    #[tokio::test]
    async fn a_port_in_use_names_the_address_and_the_key() {
        let first = Admin::bind(ANY_PORT).await.unwrap();
        let address = first.address();
        let error = Admin::bind(address).await.unwrap_err();
        let message = format!(
            "could not listen on {address} ([admin] address): the address is already in use"
        );
        assert_eq!(error.to_string(), message);
        let failure = crate::failure::Failure::from(error);
        assert_eq!(failure.exit_code(), 1);
        let hint = "Is another pgstar running? Stop it, or give [admin] address another port.";
        assert_eq!(
            failure.report(),
            format!("pgstar: {message}\nHINT:  {hint}")
        );
    }
}
