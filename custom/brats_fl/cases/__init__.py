"""From a file on disk to a tensor: data lists, safe reading, labels and regions, transforms, the cache."""
