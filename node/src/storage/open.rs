//! From a root as people write it to an [`ObjectStorage`].

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::Path as LocalPath;
use std::sync::{Arc, LazyLock};

use object_store::aws::{AmazonS3, AmazonS3Builder};
use object_store::local::LocalFileSystem;
use object_store::memory::InMemory;
use object_store::path::Path;
use object_store::{ClientOptions, ObjectStore, RetryConfig};

use super::{Error, ObjectStorage, REQUEST_TIMEOUT};

/// All `memory://` roots of this process are prefixes of one store, so that two openings of a name share its objects.
static MEMORY: LazyLock<Arc<InMemory>> = LazyLock::new(Arc::default);

/// The settings of S3 that the process was started with.
fn environment() -> BTreeMap<String, String> {
    let text = |(name, value): (OsString, OsString)| {
        Some((name.into_string().ok()?, value.into_string().ok()?))
    };
    std::env::vars_os()
        .filter_map(text)
        .filter(|(name, _)| name.starts_with("AWS_"))
        .collect()
}

impl ObjectStorage {
    /// Opens `root`: `file:///x`, a plain path (absolute or relative; made absolute), `s3://bucket/prefix` or
    /// `memory:///name`. A directory is created if it is missing; one that cannot be created yet is opened all the same,
    /// and every request fails until it can. S3 takes its credentials and its endpoint from
    /// the environment, by the names that its tools use; see [`Self::open_with`].
    pub fn open(root: &str) -> Result<Self, Error> {
        Self::open_with(root, &environment())
    }

    /// As [`Self::open`], for reading what must be there already: a missing directory is an error and is not created.
    pub fn open_existing(root: &str) -> Result<Self, Error> {
        let path = root.trim().strip_prefix("file://").unwrap_or(root.trim());
        if !path.contains("://") && !LocalPath::new(path).is_dir() {
            return Err(Error::NotFound {
                path: root.to_owned(),
            });
        }
        Self::open(root)
    }

    /// As [`Self::open`], with options for S3 by the names that its tools use as environment variables
    /// (`AWS_ACCESS_KEY_ID`, `AWS_SECRET_ACCESS_KEY`, `AWS_ENDPOINT`, `AWS_REGION`, …). Names that are not options are
    /// ignored, so that the whole environment can be passed. Plain text is spoken only with an endpoint that is written
    /// `http://`.
    pub fn open_with(root: &str, options: &BTreeMap<String, String>) -> Result<Self, Error> {
        let trimmed = root.trim();
        let Some((scheme, rest)) = trimmed.split_once("://") else {
            if trimmed.is_empty() {
                let reason = "it is empty; give a directory or a URL";
                return Err(invalid(root, reason));
            }
            return Self::open_directory(root, LocalPath::new(trimmed));
        };
        match scheme {
            "file" => {
                let url = url::Url::parse(trimmed).map_err(|error| invalid(root, error))?;
                let path = url.to_file_path();
                let path = path.map_err(|()| {
                    invalid(root, "a file URL has three slashes: file:///directory")
                })?;
                Self::open_directory(root, &path)
            }
            "memory" => {
                let prefix = prefix(root, rest)?;
                let normal = format!("memory:///{prefix}");
                let store = Arc::clone(&*MEMORY) as Arc<dyn ObjectStore>;
                Ok(Self::over(store, &normal, prefix))
            }
            #[cfg(feature = "simulation")]
            "sim" => {
                let environment = crate::simulation::environment();
                let environment = environment.ok_or_else(|| invalid(root, "this is real"))?;
                let prefix = prefix(root, rest)?;
                let normal = format!("sim://{prefix}");
                Ok(Self::over(environment.object_store(), &normal, prefix))
            }
            "s3" | "s3a" => {
                let (bucket, path) = rest.split_once('/').unwrap_or((rest, ""));
                if bucket.is_empty() {
                    return Err(invalid(root, "it names no bucket: s3://bucket/prefix"));
                }
                let prefix = prefix(root, path)?;
                let normal = format!("s3://{bucket}/{prefix}");
                let store = client(bucket, options).map_err(|error| invalid(root, error))?;
                let store = Arc::new(store);
                let mut storage = Self::over(
                    Arc::clone(&store) as _,
                    normal.trim_end_matches('/'),
                    prefix,
                );
                storage.s3 = Some(store);
                Ok(storage)
            }
            other => {
                let reason =
                    format!("{other}:// is unknown; use a path, file://, s3:// or memory://");
                Err(invalid(root, reason))
            }
        }
    }

    fn open_directory(root: &str, path: &LocalPath) -> Result<Self, Error> {
        let path = std::path::absolute(path).map_err(|error| invalid(root, error))?;
        let name = path
            .to_str()
            .ok_or_else(|| invalid(root, "it is not UTF-8"))?;
        let (store, prefix) = match std::fs::create_dir_all(&path) {
            Ok(()) => {
                let store = LocalFileSystem::new_with_prefix(&path)
                    .map_err(|error| Error::of(root, error))?;
                // A directory whose last object was deleted goes too: a job leaves nothing behind.
                (store.with_automatic_cleanup(true), Path::default())
            }
            // It may be mended while we run, and until then it is each request that fails, not who opens.
            Err(_) => {
                let prefix = Path::from_absolute_path(&path);
                let prefix = prefix.map_err(|error| invalid(root, error))?;
                (LocalFileSystem::new(), prefix)
            }
        };
        let mut storage = Self::over(Arc::new(store), name, prefix);
        storage.directory = Some(path.into());
        Ok(storage)
    }

    fn over(store: Arc<dyn ObjectStore>, root: &str, prefix: Path) -> Self {
        Self {
            store,
            s3: None,
            root: root.into(),
            prefix,
            directory: None,
            request_timeout: REQUEST_TIMEOUT,
        }
    }
}

fn invalid(root: &str, reason: impl ToString) -> Error {
    Error::InvalidRoot {
        root: root.to_owned(),
        reason: reason.to_string(),
    }
}

fn prefix(root: &str, path: &str) -> Result<Path, Error> {
    Path::parse(path.trim_matches('/')).map_err(|error| invalid(root, error))
}

/// The names of the option that says where S3 is.
const ENDPOINTS: [&str; 3] = ["AWS_ENDPOINT", "AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3"];

fn client(
    bucket: &str,
    options: &BTreeMap<String, String>,
) -> Result<AmazonS3, object_store::Error> {
    // The tries are ours to count: the client's own are kept few. It needs one to go on with a body that broke off.
    let retry = RetryConfig {
        max_retries: 1,
        retry_timeout: REQUEST_TIMEOUT,
        ..RetryConfig::default()
    };
    let plain_text = |name| matches!(options.get(name), Some(url) if url.starts_with("http://"));
    // The deadlines are ours too: the client's would be for the whole body, however large the object.
    let connections = ClientOptions::new()
        .with_timeout_disabled()
        .with_allow_http(ENDPOINTS.into_iter().any(plain_text));
    let builder = AmazonS3Builder::new()
        .with_bucket_name(bucket)
        .with_retry(retry)
        .with_client_options(connections);
    let builder = options.iter().fold(builder, |builder, (name, value)| {
        match name.to_ascii_lowercase().parse() {
            Ok(key) => builder.with_config(key, value),
            Err(_) => builder,
        }
    });
    builder.build()
}
