//! The client of a storage service, with its credentials: from the environment, or from a file the URL names.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use object_store::aws::{AmazonS3, AmazonS3Builder, AmazonS3ConfigKey};
use object_store::azure::{AzureConfigKey, MicrosoftAzureBuilder};
use object_store::gcp::{GoogleCloudStorageBuilder, GoogleConfigKey};
use object_store::multipart::MultipartStore;
use object_store::{BackoffConfig, ClientOptions, ObjectStore, RetryConfig};
use zeroize::Zeroizing;

use super::url::{CloudUrl, Credentials, Service};
use crate::error::{Error, Result};

/// The same service seen in the ways it is used.
#[derive(Clone)]
pub struct Client {
    /// Objects.
    pub objects: Arc<dyn ObjectStore>,
    /// Objects in parts.
    pub parts: Arc<dyn MultipartStore>,
    /// S3 only, for the requests the library does not know.
    pub s3: Option<Arc<AmazonS3>>,
}

impl std::fmt::Debug for Client {
    /// Without what it signs with.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Client")
    }
}

/// Variables by name, from the environment or a file.
type Variables = BTreeMap<String, Zeroizing<String>>;

/// Makes the client. Nothing is asked of the service yet.
///
/// # Errors
/// Config when there are no credentials, or they cannot be used.
pub fn connect(url: &CloudUrl) -> Result<Client> {
    // An error only says that a provider is installed already.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let variables = match &url.credentials {
        Credentials::File(path) if url.service != Service::Gcs => read_file(path)?,
        Credentials::Environment | Credentials::Machine => environment(),
        Credentials::File(path) => {
            readable(path)?;
            Variables::new()
        }
    };
    match url.service {
        Service::S3 => s3(url, &variables),
        Service::Gcs => gcs(url, &variables),
        Service::Azure => azure(url, &variables),
    }
}

fn environment() -> Variables {
    std::env::vars_os()
        .filter_map(|(k, v)| Some((k.into_string().ok()?, Zeroizing::new(v.into_string().ok()?))))
        .filter(|(k, v)| !v.is_empty() && ["AWS_", "GOOGLE_", "AZURE_"].iter().any(|p| k.starts_with(p)))
        .collect()
}

/// Refuses a file that everybody can read, or nobody.
fn readable(path: &Path) -> Result<String> {
    use std::os::unix::fs::PermissionsExt;
    let shown = path.display().to_string();
    let error = |e: std::io::Error| Error::config(format!("the file of credentials {shown:?} cannot be read")).why(e);
    let mode = std::fs::metadata(path).map_err(error)?.permissions().mode();
    if mode & 0o007 != 0 {
        return Err(Error::config(format!("everybody on this machine can read the file of credentials {shown:?}"))
            .hint(format!("chmod 0600 {shown}, or 0640 with a group of its own")));
    }
    std::fs::read_to_string(path).map_err(error)
}

fn read_file(path: &Path) -> Result<Variables> {
    let text = Zeroizing::new(readable(path)?);
    let mut found = Variables::new();
    for (number, line) in text.lines().enumerate() {
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let line = line.strip_prefix("export ").unwrap_or(line);
        let Some((name, value)) = line.split_once('=') else {
            // The line is not repeated: it may be the secret.
            return Err(Error::config(format!("{}:{}: not NAME=value", path.display(), number + 1)));
        };
        let value = value.trim().trim_matches(['"', '\'']);
        found.insert(name.trim().to_string(), Zeroizing::new(value.to_string()));
    }
    Ok(found)
}

fn retry(url: &CloudUrl) -> RetryConfig {
    RetryConfig {
        backoff: BackoffConfig {
            init_backoff: Duration::from_millis(100),
            max_backoff: Duration::from_secs(10),
            base: 2.0,
        },
        // Bounded by time; the count is a second limit far beyond it.
        max_retries: 60,
        retry_timeout: url.patience,
    }
}

fn options(url: &CloudUrl, endpoint: Option<&str>) -> ClientOptions {
    ClientOptions::new()
        .with_timeout(url.timeout)
        .with_connect_timeout(url.timeout.min(Duration::from_secs(10)))
        .with_allow_http(endpoint.is_some_and(|e| e.starts_with("http://")))
}

fn cannot(e: &object_store::Error) -> Error {
    // Its text may repeat a value.
    let first = e.to_string().lines().next().unwrap_or_default().to_string();
    Error::config("the storage service cannot be set up").why(crate::model::CleanText::line(first.as_bytes()).as_str())
}

fn no_credentials(url: &CloudUrl, variables: &str) -> Error {
    let file = match url.service {
        Service::Gcs => "the JSON file of a service account",
        _ => "a file with those variables",
    };
    Error::config(format!("no credentials for {}", url.short()))
        .hint(format!("Set {variables}; or add ?credentials=/absolute/path of {file} to the URL."))
        .hint("On a machine that has a role of its own: ?credentials=machine.")
}

fn s3(url: &CloudUrl, variables: &Variables) -> Result<Client> {
    let has = |name: &str| variables.contains_key(name);
    let own = has("AWS_ACCESS_KEY_ID") && has("AWS_SECRET_ACCESS_KEY");
    let given = own
        || has("AWS_WEB_IDENTITY_TOKEN_FILE")
        || has("AWS_CONTAINER_CREDENTIALS_RELATIVE_URI")
        || has("AWS_CONTAINER_CREDENTIALS_FULL_URI");
    if !given && url.credentials != Credentials::Machine {
        return Err(no_credentials(url, "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"));
    }
    let mut builder = AmazonS3Builder::new().with_bucket_name(&url.bucket);
    let mut endpoint = None;
    for (name, value) in variables {
        let Ok(key) = name.to_ascii_lowercase().parse::<AmazonS3ConfigKey>() else { continue };
        match key {
            AmazonS3ConfigKey::Endpoint | AmazonS3ConfigKey::S3Endpoint => {
                // The more specific one counts.
                if endpoint.is_none() || matches!(key, AmazonS3ConfigKey::S3Endpoint) {
                    endpoint = Some(value.as_str());
                }
            }
            AmazonS3ConfigKey::Bucket => {}
            _ => builder = builder.with_config(key, value.as_str()),
        }
    }
    let endpoint = url.endpoint.as_deref().or(endpoint);
    if let Some(region) = &url.region {
        builder = builder.with_region(region);
    }
    if let Some(endpoint) = endpoint {
        builder = builder.with_endpoint(endpoint);
    }
    if let Some(path_style) = url.path_style {
        builder = builder.with_virtual_hosted_style_request(!path_style);
    }
    // Not every service takes many deletions in one request.
    let built = builder
        .with_disable_bulk_delete(true)
        .with_retry(retry(url))
        .with_client_options(options(url, endpoint))
        .build()
        .map_err(|e| cannot(&e))?;
    let s3 = Arc::new(built);
    Ok(Client { objects: s3.clone(), parts: s3.clone(), s3: Some(s3) })
}

fn gcs(url: &CloudUrl, variables: &Variables) -> Result<Client> {
    let mut builder = GoogleCloudStorageBuilder::new().with_bucket_name(&url.bucket);
    let mut given = false;
    match &url.credentials {
        Credentials::File(path) => builder = builder.with_application_credentials(path.display().to_string()),
        Credentials::Machine => {}
        Credentials::Environment => {
            for (name, value) in variables {
                let Ok(key) = name.to_ascii_lowercase().parse::<GoogleConfigKey>() else { continue };
                if matches!(key, GoogleConfigKey::Bucket) {
                    continue;
                }
                given |= matches!(
                    key,
                    GoogleConfigKey::ServiceAccount
                        | GoogleConfigKey::ServiceAccountKey
                        | GoogleConfigKey::ApplicationCredentials
                        | GoogleConfigKey::BearerToken
                );
                builder = builder.with_config(key, value.as_str());
            }
            let gcloud = std::env::home_dir().map(|h| h.join(".config/gcloud/application_default_credentials.json"));
            if !given && !gcloud.is_some_and(|f| f.exists()) {
                return Err(no_credentials(url, "GOOGLE_APPLICATION_CREDENTIALS"));
            }
        }
    }
    if let Some(endpoint) = &url.endpoint {
        builder = builder.with_base_url(endpoint);
    }
    let built = builder
        .with_retry(retry(url))
        .with_client_options(options(url, url.endpoint.as_deref()))
        .build()
        .map_err(|e| cannot(&e))?;
    let gcs = Arc::new(built);
    Ok(Client { objects: gcs.clone(), parts: gcs, s3: None })
}

fn azure(url: &CloudUrl, variables: &Variables) -> Result<Client> {
    let mut builder = MicrosoftAzureBuilder::new().with_container_name(&url.bucket);
    let (mut given, mut account) = (false, url.account.is_some());
    for (name, value) in variables {
        let Ok(key) = name.to_ascii_lowercase().parse::<AzureConfigKey>() else { continue };
        given |= matches!(
            key,
            AzureConfigKey::AccessKey
                | AzureConfigKey::SasKey
                | AzureConfigKey::ClientSecret
                | AzureConfigKey::Token
                | AzureConfigKey::FederatedTokenFile
        );
        account |= matches!(key, AzureConfigKey::AccountName);
        if !matches!(key, AzureConfigKey::ContainerName) {
            builder = builder.with_config(key, value.as_str());
        }
    }
    if !given && url.credentials != Credentials::Machine {
        return Err(no_credentials(url, "AZURE_STORAGE_ACCOUNT_KEY"));
    }
    if !account {
        return Err(Error::config(format!("no storage account for {}", url.short()))
            .hint("Set AZURE_STORAGE_ACCOUNT_NAME, or add ?account=NAME to the URL."));
    }
    if let Some(account) = &url.account {
        builder = builder.with_account(account);
    }
    if let Some(endpoint) = &url.endpoint {
        builder = builder.with_endpoint(endpoint.clone());
    }
    let built = builder
        .with_retry(retry(url))
        .with_client_options(options(url, url.endpoint.as_deref()))
        .build()
        .map_err(|e| cannot(&e))?;
    let azure = Arc::new(built);
    Ok(Client { objects: azure.clone(), parts: azure, s3: None })
}
