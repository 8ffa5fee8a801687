//! One throw-away server per test binary, and a database of its own for each test.

#![allow(dead_code)] // Not every test binary needs every helper.

use std::sync::atomic::{AtomicU32, Ordering};

use pgstar_postgres::connect::{Connection, Connector};
use pgstar_postgres::server::{InstallPolicy, Server, ServerOptions};
use tokio::sync::OnceCell;
use tokio_postgres::Config;

/// A static is never dropped; the server's watchdog clears up when the test binary ends.
static SERVER: OnceCell<Server> = OnceCell::const_new();
static DATABASES: AtomicU32 = AtomicU32::new(0);

const SETTINGS: [(&str, &str); 3] = [
    // Slots of rollups' upkeep stay when their test is over.
    ("max_replication_slots", "50"),
    ("max_wal_senders", "50"),
    // Transactions of a few hundred rows are streamed before their end.
    ("logical_decoding_work_mem", "64kB"),
];

pub async fn server() -> &'static Server {
    let options = ServerOptions {
        install: InstallPolicy::Never,
        settings: SETTINGS
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .to_vec(),
        ..ServerOptions::default()
    };
    SERVER
        .get_or_init(|| async { Server::start(options).await.unwrap() })
        .await
}

/// A database of one test's own.
pub struct Database {
    pub name: String,
}

impl Database {
    pub async fn create() -> Self {
        let name = format!("test_{}", DATABASES.fetch_add(1, Ordering::Relaxed));
        let admin = connect(server().await.config("postgres")).await;
        admin
            .batch_execute(&format!("CREATE DATABASE {name} TEMPLATE template0"))
            .await
            .unwrap();
        Database { name }
    }

    /// A database in which `sql` has been run.
    pub async fn with(sql: &str) -> Self {
        let database = Database::create().await;
        database.run(sql).await;
        database
    }

    pub async fn config(&self) -> Config {
        server().await.config(&self.name)
    }

    pub async fn config_as(&self, role: &str) -> Config {
        let mut config = self.config().await;
        config.user(role);
        config
    }

    pub async fn connect(&self) -> Connection {
        connect(self.config().await).await
    }

    /// Runs statements as the superuser with the usual search path.
    pub async fn run(&self, sql: &str) {
        let connection = self.connect().await;
        connection
            .batch_execute("SET search_path = public")
            .await
            .unwrap();
        connection.batch_execute(sql).await.unwrap();
    }

    /// The only column of the only row, as text.
    pub async fn value(&self, sql: &str) -> String {
        let connection = self.connect().await;
        let sql = format!("SELECT ({sql})::text");
        connection
            .query_one(&sql, &[])
            .await
            .unwrap()
            .get::<_, Option<String>>(0)
            .unwrap_or_default()
    }

    /// Roles belong to the whole server, so each test has its own.
    pub fn role(&self, name: &str) -> String {
        format!("{}_{name}", self.name)
    }
}

pub async fn connect(config: Config) -> Connection {
    Connector::new(config).unwrap().connect().await.unwrap()
}
