"""A copy of a run in a storage, kept while it is trained, from which another machine goes on."""
