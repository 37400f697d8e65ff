"""Merge the ranks' journals into one table and its metrics, with a list of missing samples."""
