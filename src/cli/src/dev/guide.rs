//! The guide: seven steps through the public API, each checked.

use anyhow::{Context, ensure};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use dayfly_client::{Credential, v1};
use dayfly_core::audit::{Event, EventKind};
use dayfly_core::digest::Digest;
use serde_json::Value;

use super::audit;
use super::people::Person;
use super::policy::AUDIENCE;
use super::world::World;
use crate::output;

/// Does every step; the first that is not as it should be ends it.
pub(crate) async fn run(world: &World) -> anyhow::Result<()> {
    let mut guide = Guide { world, number: 0, rule: String::new(), before: world.store().log_head().size };
    let first = guide.issues().await?;
    let bystander =
        world.client(Person::Checkout)?.issue(ask(&[])).await.context("checkout got no credential")?;
    guide.introspects(&first).await?;
    guide.denies().await?;
    guide.revokes().await?;
    guide.knows_revoked(&first, &bystander).await?;
    let second = guide.issues_again(&first).await?;
    guide.reads_the_log(&[&first, &bystander, &second]).await
}

struct Guide<'a> {
    world: &'a World,
    number: u32,
    /// The rule that step 4 wrote.
    rule: String,
    /// How much the log held before the first step.
    before: u64,
}

/// For all that the Grant has, or for some scopes.
fn ask(scope: &[&str]) -> v1::IssueRequest {
    let scope = scope.iter().map(|&scope| scope.to_owned()).collect();
    v1::IssueRequest { target: "orders".to_owned(), scope, ..Default::default() }
}

impl Guide<'_> {
    /// A step that was as it should be.
    fn done(&mut self, title: &str, lines: &[String]) -> anyhow::Result<()> {
        self.number += 1;
        let lines: Vec<_> = lines.iter().map(|line| format!("     {}\n", output::plain(line))).collect();
        output::print(&format!("{:>2}  {title}\n{}\n", self.number, lines.concat()))?;
        Ok(())
    }

    async fn issues(&mut self) -> anyhow::Result<Credential> {
        let client = self.world.client(Person::Payments)?;
        let credential = client.issue(ask(&["orders:read"])).await.context("payments got no credential")?;
        let claims = claims(&credential)?;
        let lease = &credential.lease;
        ensure!(claims["jti"] == lease.id.as_str(), "the token's jti is not its lease: {claims}");
        ensure!(claims["aud"] == AUDIENCE, "the audience is not the target's: {claims}");
        ensure!(claims["scope"] == "orders:read", "the scope is not the one asked for: {claims}");
        ensure!(lease.owner == "payments", "the owner is {}", lease.owner);
        let shown =
            ["iss", "sub", "aud", "scope", "jti"].map(|name| format!("{name:5}  {}", text(&claims[name])));
        let life = format!("lives  {} s", credential.life.as_secs());
        let lines: Vec<_> = shown.into_iter().chain([life]).collect();
        self.done("A pod's projected token becomes a credential. Its claims:", &lines)?;
        Ok(credential)
    }

    async fn introspects(&mut self, credential: &Credential) -> anyhow::Result<()> {
        let answer = self.introspect(credential).await?;
        ensure!(answer.active, "a new credential is not active");
        let lease = answer.lease.context("the verifier was not told the lease")?;
        ensure!(lease.id == credential.lease.id, "introspection found another lease");
        let line = format!("active: yes, owner {}, by grant {}", lease.owner, lease.grant);
        self.done("The orders service asks whether it is good:", &[line])
    }

    async fn denies(&mut self) -> anyhow::Result<()> {
        let client = self.world.client(Person::Payments)?;
        let denied = client.issue(ask(&["orders:read", "orders:delete"])).await.err();
        let denied = denied.context("a scope that is not granted was given")?;
        ensure!(denied.reason() == Some("SCOPE_NOT_GRANTED"), "denied for another reason: {denied}");
        self.done(
            "A scope that no grant gives is denied, with what to change:",
            &["SCOPE_NOT_GRANTED".to_owned(), denied.to_string()],
        )
    }

    async fn revokes(&mut self) -> anyhow::Result<()> {
        let client = self.world.client(Person::Operator)?;
        let request = |dry_run| v1::RevokeRequest {
            selector: Some(v1::Selector { owner: "payments".to_owned(), ..Default::default() }),
            after: v1::After::Reissue.into(),
            reason: "the guide of dayfly dev".to_owned(),
            dry_run,
            idempotency_key: String::new(),
        };
        let would = client.revoke(request(true)).await.context("the dry run failed")?;
        ensure!(would.would_cover >= 1 && would.rule.is_none(), "the dry run covers nothing");
        let revoked = client.revoke(request(false)).await.context("the revocation failed")?;
        ensure!(revoked.can_reissue, "payments could not ask again");
        let rule = revoked.rule.context("no rule was written")?;
        self.done(
            "On call, someone ends all that payments holds: one durable rule, whatever it covers:",
            &[
                format!("rule {} at position {}", rule.id, rule.position),
                format!("live credentials it covers: {}", would.would_cover),
            ],
        )?;
        self.rule = rule.id;
        Ok(())
    }

    async fn knows_revoked(&mut self, revoked: &Credential, bystander: &Credential) -> anyhow::Result<()> {
        let answer = self.introspect(revoked).await?;
        ensure!(!answer.active, "a revoked credential is active");
        let lease = answer.lease.context("the verifier was not told the lease")?;
        ensure!(lease.state() == v1::LeaseState::Revoked, "its state is {:?}", lease.state());
        ensure!(lease.revoked_by == self.rule, "another rule revoked it: {}", lease.revoked_by);
        let other = self.introspect(bystander).await?;
        ensure!(other.active, "checkout's credential ended with payments'");
        self.done(
            "The orders service asks again, the moment after:",
            &[
                format!("payments: active: no, revoked by {}", lease.revoked_by),
                "checkout: active: yes".to_owned(),
            ],
        )
    }

    async fn issues_again(&mut self, first: &Credential) -> anyhow::Result<Credential> {
        let client = self.world.client(Person::Payments)?;
        let second = client.issue(ask(&[])).await.context("payments could not ask again")?;
        ensure!(second.lease.id > first.lease.id, "the new lease is not after the old one");
        ensure!(self.introspect(&second).await?.active, "the new credential is not active");
        ensure!(!self.introspect(first).await?.active, "the old credential came back");
        let line = format!("lease {}, active: yes", second.lease.id);
        self.done("It was for reissue, so payments asks again and gets a new one:", &[line])?;
        Ok(second)
    }

    async fn reads_the_log(&mut self, issued: &[&Credential]) -> anyhow::Result<()> {
        let store = self.world.store();
        let events = audit::events(&*store).await?;
        for credential in issued {
            let id = &credential.lease.id;
            let found = events.iter().filter(|event| event.kind == EventKind::Issued);
            let found = found.filter_map(Event::lease).any(|lease| lease.to_string() == *id);
            ensure!(found, "the log does not say that {id} was issued");
        }
        let ruled = events.iter().filter_map(Event::rule).any(|rule| rule.to_string() == self.rule);
        ensure!(ruled, "the log does not say that {} was written", self.rule);
        let leaves: Vec<_> = events.iter().map(|event| event.leaf_hash).collect();
        let root = Digest::from_bytes(dayfly_core::merkle::root_of(&leaves));
        let new = events.iter().filter(|event| event.position.number() > self.before);
        let mut lines: Vec<_> = new.map(line).collect();
        lines.push(format!("root over {} leaves, recomputed: {root}", events.len()));
        self.done("What the audit log says of all that:", &lines)
    }

    async fn introspect(&self, credential: &Credential) -> anyhow::Result<v1::IntrospectResponse> {
        let client = self.world.client(Person::Verifier)?;
        client.introspect(&credential.secret).await.context("the verifier got no answer")
    }
}

fn line(event: &Event) -> String {
    let detail = event.detail.as_ref();
    let what = match event.kind {
        EventKind::Issued | EventKind::Renewed => {
            detail.map(|it| format!("{} for {}", it.workload, it.target))
        }
        EventKind::Revoked => detail.map(|it| format!("{}, then {}", it.selector, it.after)),
        _ => detail.map(|it| it.note.clone()),
    };
    let subject = event.lease().map(|id| id.to_string()).or(event.rule().map(|id| id.to_string()));
    let words = [subject, what].into_iter().flatten().filter(|it| !it.is_empty()).collect::<Vec<_>>();
    format!("{:>3}  {:14}  {}", event.position, event.kind.name(), words.join("  ")).trim_end().to_owned()
}

/// The claims of a JWT, unverified: the verifier's introspection is the check.
fn claims(credential: &Credential) -> anyhow::Result<Value> {
    let text = credential.secret.expose_text()?;
    let payload = text.split('.').nth(1).context("the credential is no JWT")?;
    Ok(serde_json::from_slice(&URL_SAFE_NO_PAD.decode(payload)?)?)
}

fn text(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}
