"""The logical plan: what is asked, checked while it is built. Pure; runs nothing."""
