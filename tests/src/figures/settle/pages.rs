//! What the dashboard and an export ask the service for, over HTTP as they do it.

use std::fs;
use std::sync::Arc;
use std::time::Instant;

use anyhow::{Context as _, Result};
use bitspire_operator::app::App;
use bitspire_operator::http::auth::Gate;
use bitspire_operator::http::listen::{Bounds, listen};
use bitspire_operator::http::people::{People, cookie_path};
use bitspire_operator::http::{Api, router};
use tokio::net::TcpListener;

use crate::figures::percentile;
use crate::http::Client;

/// Each page is asked for so often.
const ASKED: usize = 50;

/// Where pages are asked for.
pub(super) struct Pages {
    url: String,
    token: String,
}

impl Pages {
    /// Serves them.
    pub(super) async fn open(app: &Arc<App>) -> Result<Self> {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
        let url = format!("http://{}", listener.local_addr()?);
        let people = Arc::new(People::new(app.clone()));
        people.write_cookie(&url)?;
        let line = fs::read_to_string(cookie_path(&app.config.data_dir))?;
        let (_, cookie) = line.trim().split_once(' ').context("a cookie")?;
        let token = format!("Bearer {cookie}");
        let gate = Gate::new(people, app.config.api_base_url.clone(), app.clock.clone());
        let router = router(Api { app: app.clone() }, gate);
        app.tasks.spawn(listen(listener, router, Bounds::default(), app.stop.clone()));
        Ok(Self { url, token })
    }

    /// The slowest hundredth of the page that takes longest, in milliseconds; of `settled` settlements
    /// the newest, the oldest and some in the middle are asked for.
    pub(super) async fn slowest(&self, settled: u64) -> Result<f64> {
        let middle = settled / 2;
        let paths = [
            "dca/machines".to_owned(),
            "dca/machines/1".to_owned(),
            "dca/settlements?limit=50".to_owned(),
            "dca/settlements?limit=50&machine=1".to_owned(),
            format!("dca/settlements?limit=50&before={middle}"),
            format!("dca/settlements/{middle}"),
            format!("dca/settlements/all?limit=100&after={middle}"),
            format!("dca/ledger?limit=100&after={middle}"),
            "dca/distribution?limit=100".to_owned(),
            "dca/payouts".to_owned(),
            "dca/liabilities".to_owned(),
            "dca/rejected?limit=50".to_owned(),
            "audit-log?limit=50".to_owned(),
            "health".to_owned(),
        ];
        let (mut slowest, mut which) = (0.0, String::new());
        for path in paths {
            let (url, token) = (format!("{}/api/v1/{path}", self.url), self.token.clone());
            let mut took = tokio::task::spawn_blocking(move || {
                let client = Client::default();
                let ask = || {
                    let started = Instant::now();
                    client.get(&url, &[("authorization", &token)])?;
                    Ok::<_, anyhow::Error>(started.elapsed().as_secs_f64() * 1_000.0)
                };
                (0..ASKED).map(|_| ask()).collect::<Result<Vec<_>>>()
            })
            .await??;
            let p99 = percentile(&mut took, 99)?;
            if p99 > slowest {
                (slowest, which) = (p99, path);
            }
        }
        eprintln!("of {settled} settlements, slowest page: {which}");
        Ok(slowest)
    }
}
