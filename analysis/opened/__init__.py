"""A results folder as an object: ``analysis.opened.results.StudyResults``, known to users as ``routing.Results``."""
