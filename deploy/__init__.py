"""What runs the product: the demo here, images and manifests beside it."""
