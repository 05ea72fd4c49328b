"""One file a policy, all behind the Policy protocol."""
