//! The caller's own token: where it comes from, at each call.

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use dayfly_core::limits;
use dayfly_core::ports::BoxFuture;
use dayfly_core::secret::Secret;

/// Gives the caller's own token: asked at each call.
pub trait TokenSource: Send + Sync + 'static {
    /// The token to call with now.
    fn token(&self) -> BoxFuture<'_, Result<Arc<Secret>, TokenError>>;
}

/// The caller's own token cannot be had. It never holds the token.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct TokenError(pub String);

/// A token in a file that may be replaced at any time, as the kubelet does with a projected one.
///
/// The file is looked at for each call, and read again only if it is another one than before (modification time, inode,
/// length; links are followed, since the kubelet replaces by swapping one).
pub struct TokenFile {
    path: PathBuf,
    last: Mutex<Option<(Stamp, Arc<Secret>)>>,
}

/// What changes when a file is replaced or written: modified seconds and nanoseconds, inode, length.
type Stamp = (i64, i64, u64, u64);

impl TokenFile {
    /// The token in this file.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self { path: path.into(), last: Mutex::new(None) }
    }

    async fn read(&self) -> Result<Arc<Secret>, TokenError> {
        let stamp = stamp(&self.path).await?;
        if let Some((_, token)) = self.lock().as_ref().filter(|(last, _)| *last == stamp) {
            return Ok(Arc::clone(token));
        }
        let bytes = tokio::fs::read(&self.path).await.map_err(|error| unreadable(&self.path, &error))?;
        let token = Arc::new(parse(&self.path, Secret::from(bytes))?);
        // Kept under the stamp from before the read: if it was replaced in between, the next call reads again.
        *self.lock() = Some((stamp, Arc::clone(&token)));
        Ok(token)
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Option<(Stamp, Arc<Secret>)>> {
        self.last.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl TokenSource for TokenFile {
    fn token(&self) -> BoxFuture<'_, Result<Arc<Secret>, TokenError>> {
        Box::pin(self.read())
    }
}

async fn stamp(path: &Path) -> Result<Stamp, TokenError> {
    let found = tokio::fs::metadata(path).await.map_err(|error| unreadable(path, &error))?;
    if found.len() > limits::TOKEN_BYTES as u64 {
        let message = format!("{} has {} bytes: it is not a token file", path.display(), found.len());
        return Err(TokenError(message));
    }
    Ok((found.mtime(), found.mtime_nsec(), found.ino(), found.len()))
}

/// What surrounds the token in the file is white space at most; what is in it can go into a header.
fn parse(path: &Path, bytes: Secret) -> Result<Secret, TokenError> {
    let token = bytes.expose().trim_ascii();
    if token.is_empty() {
        return Err(TokenError(format!("the token file {} is empty", path.display())));
    }
    if token.len() > limits::TOKEN_BYTES || !token.iter().all(u8::is_ascii_graphic) {
        return Err(TokenError(format!("{} does not hold a token", path.display())));
    }
    Ok(if token.len() == bytes.len() { bytes } else { Secret::from(token.to_vec()) })
}

fn unreadable(path: &Path, error: &std::io::Error) -> TokenError {
    TokenError(format!("cannot read the token file {}: {error}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn text(file: &TokenFile) -> Result<String, TokenError> {
        let token = file.token().await?;
        Ok(token.expose_text().unwrap().to_owned())
    }

    #[tokio::test]
    async fn a_replaced_file_is_read_again() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("token");
        std::fs::write(&path, "one\n").unwrap();
        let file = TokenFile::new(&path);
        assert_eq!(text(&file).await.unwrap(), "one");
        assert_eq!(text(&file).await.unwrap(), "one");
        std::fs::write(folder.path().join("next"), "two").unwrap();
        std::fs::rename(folder.path().join("next"), &path).unwrap();
        assert_eq!(text(&file).await.unwrap(), "two");
    }

    #[tokio::test]
    async fn what_is_no_token_is_refused_without_showing_it() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("token");
        let file = TokenFile::new(&path);
        assert!(text(&file).await.unwrap_err().to_string().starts_with("cannot read the token file"));
        for (content, said) in
            [("", "is empty"), ("se cret", "does not hold a token"), ("x\u{e9}", "does not hold")]
        {
            std::fs::write(&path, content).unwrap();
            let error = text(&file).await.unwrap_err().to_string();
            assert!(error.contains(said) && (content.is_empty() || !error.contains(content)), "{error}");
        }
        std::fs::write(&path, "x".repeat(limits::TOKEN_BYTES + 1)).unwrap();
        assert!(text(&file).await.unwrap_err().to_string().contains("is not a token file"));
    }
}
