"""The platform in containers: images, compose's files, Kubernetes manifests, and the scripts that go with them."""
