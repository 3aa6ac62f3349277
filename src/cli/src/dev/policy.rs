//! The policy that dev begins with: two owners, one target, and a grant for each.

/// The target's only audience.
pub(crate) const AUDIENCE: &str = "https://orders.dev.internal";

/// File names and what is in them.
pub(crate) const FILES: [(&str, &str); 4] = [
    (
        "owners.yaml",
        "apiVersion: dayfly.dev/v1alpha1
kind: Owner
metadata: {name: payments}
spec:
  displayName: Payments
  contacts: ['#payments-oncall']
  namespaces: {names: [payments]}
---
apiVersion: dayfly.dev/v1alpha1
kind: Owner
metadata: {name: checkout}
spec:
  displayName: Checkout
  contacts: ['#checkout-oncall']
  namespaces: {names: [checkout]}
",
    ),
    (
        "orders.yaml",
        "# What nobody may go above: a Grant chooses from the ceiling.
apiVersion: dayfly.dev/v1alpha1
kind: Target
metadata: {name: orders}
spec:
  jwt: {audiences: ['https://orders.dev.internal']}
  maxTtl: 15m
  verifiers:
  - {namespace: orders, serviceAccount: api}
  ceiling:
  - owners: [payments]
    scopes: ['orders:read', 'orders:write']
  - owners: [checkout]
    scopes: ['orders:read']
",
    ),
    (
        "payments.yaml",
        "apiVersion: dayfly.dev/v1alpha1
kind: Grant
metadata: {name: orders, namespace: payments}
spec:
  serviceAccounts: [api]
  target: orders
  scope: ['orders:read', 'orders:write']
  defaultTtl: 5m
  maxTtl: 10m
",
    ),
    (
        "checkout.yaml",
        "apiVersion: dayfly.dev/v1alpha1
kind: Grant
metadata: {name: orders, namespace: checkout}
spec:
  serviceAccounts: [web]
  target: orders
  scope: ['orders:read']
  defaultTtl: 5m
  maxTtl: 10m
",
    ),
];
