"""One rank among others: who it is, how ranks meet, and by when they have to leave."""
