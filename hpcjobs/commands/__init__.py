"""What each verb does. These modules may use every stage."""
